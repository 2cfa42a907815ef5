import { between, stream } from "./kernel/Prng.ts"
import type { World } from "./kernel/World.ts"
import type { Host } from "./shop/ShopProcess.ts"

/** What befalls processes of the shop, and time, after a step. Who is killed is started again some seconds later. */
export const misfortune = (world: World, hosts: ReadonlyArray<Host>, restart: (dead: Host) => void): (() => void) => {
  const { faults } = world
  const draw = stream(world.seed, "misfortune")
  const victim = () => {
    const alive = hosts.filter(({ process }) => process.alive)
    return alive[Math.floor(draw() * alive.length)]
  }
  return () => {
    if (faults.happens("kill")) {
      const host = victim()
      if (host !== undefined) {
        world.kill(host.process)
        world.timer(world.outside, between(draw, 50, 4_000), () => restart(host))
      }
    }
    if (faults.happens("pause")) {
      const host = victim()
      if (host !== undefined) world.pause(host.process, between(draw, 1_000, 30_000))
    }
    if (faults.happens("longPause")) {
      const host = victim()
      if (host !== undefined) world.pauseLong(host.process, draw)
    }
    if (faults.happens("clockJump")) {
      const host = victim()
      if (host !== undefined) {
        world.setClock(host.process, between(draw, -20_000, 20_000))
        world.log(`  the clock of ${host.process.name} is off by ${host.process.skewMs} ms`)
      }
    }
    if (faults.happens("leap")) {
      world.leap(draw() < 0.7 ? between(draw, 1_000, 20_000) : between(draw, 60_000, 1_200_000))
    }
  }
}
