import { afterEach, describe, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Refused, type Server } from "../scripts/server/Server.ts"
import * as Servers from "../scripts/server/Servers.ts"
import { echo, idAt } from "./support/EchoServer.ts"
import { freePort, temporaryFolder } from "./support/Processes.ts"

const cleanUps: Array<() => unknown> = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

/** A place of its own, in which nothing is left. */
const place = (...servers: ReadonlyArray<Server>): Servers.Where => {
  const { path, remove } = temporaryFolder()
  const where = { cache: path, folder: join(path, "servers") }
  cleanUps.push(remove, () => Servers.down(servers, where, { wipe: true }))
  return where
}

const plain = { freePorts: false, owner: undefined }

const eventually = async <A>(ask: () => Promise<A>, good: (answer: A) => boolean): Promise<A> => {
  for (let tries = 0; tries < 400; tries++) {
    const answer = await ask()
    if (good(answer)) return answer
    await Bun.sleep(50)
  }
  return ask()
}

const refusal = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "was not refused",
    (error) => (error instanceof Refused ? error.message : error)
  )

describe("real servers without Docker", () => {
  test("come up, are left alone by a second up, are told of, go down, and may be taken down again", async () => {
    const port = await freePort()
    const server = echo("one", port)
    const where = place(server)
    expect(await Servers.up([server], where, plain)).toEqual({ ECHO_URL: `http://127.0.0.1:${port}` })
    const { pid, state } = await Servers.status(where, server)
    expect([state, await idAt(port)]).toEqual(["up", "one"])
    await Servers.up([server], where, plain)
    expect((await Servers.status(where, server)).pid).toBe(pid)
    await Servers.down([server], where, { wipe: false })
    expect([(await Servers.status(where, server)).state, await idAt(port)]).toEqual(["down", undefined])
    expect(existsSync(join(where.folder, "one", "data"))).toBe(true)
    await Servers.down([server], where, { wipe: true })
    expect(existsSync(join(where.folder, "one"))).toBe(false)
  })

  test("take free ports when they may, and the same ones again", async () => {
    const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("another") })
    cleanUps.push(() => taken.stop(true))
    const server = echo("one", taken.port ?? 0)
    const where = place(server)
    const first = await Servers.up([server], where, { ...plain, freePorts: true })
    expect(first["ECHO_URL"]).not.toBe(`http://127.0.0.1:${taken.port}`)
    await Servers.down([server], where, { wipe: false })
    expect(await Servers.up([server], where, plain)).toEqual(first)
  })

  test("refuse a port that somebody else listens at", async () => {
    const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("one") })
    cleanUps.push(() => taken.stop(true))
    const server = echo("one", taken.port ?? 0)
    const where = place(server)
    expect(await refusal(Servers.up([server], where, plain))).toContain(`port ${taken.port} (http) is in use`)
    expect((await Servers.status(where, server)).state).toBe("down")
  })

  test("come up together or not at all", async () => {
    const [good, bad] = [await freePort(), await freePort()]
    const never = echo("bad", bad, { readyWithinMs: 1_500, isReady: async () => false })
    const servers = [echo("good", good), never]
    const where = place(...servers)
    expect(await refusal(Servers.up(servers, where, plain))).toContain("bad was not ready in 1.5 s")
    expect([await idAt(good), await idAt(bad)]).toEqual([undefined, undefined])
  })

  test("that end by themselves before they are ready are told of with what they said", async () => {
    const command = ["sh", "-c", "echo no disk; exit 3"] as const
    const server = echo("brief", await freePort(), { prepare: async () => ({ command }), isReady: async () => false })
    expect(await refusal(Servers.up([server], place(server), plain))).toMatch(/brief ended .*\nno disk/)
  })

  test("do not outlive whoever was starting them", async () => {
    const port = await freePort()
    const { path, remove } = temporaryFolder()
    cleanUps.push(remove)
    const up = spawn(process.execPath, [join(import.meta.dir, "support/EchoServer.ts"), "up", path, String(port)], {
      stdio: "ignore"
    })
    cleanUps.push(() => up.kill("SIGKILL"))
    expect(
      await eventually(
        () => idAt(port),
        (id) => id === "slow"
      )
    ).toBe("slow")
    up.kill("SIGKILL")
    expect(
      await eventually(
        () => idAt(port),
        (id) => id === undefined
      )
    ).toBeUndefined()
  })

  test("end soon after the process that they are for", async () => {
    const port = await freePort()
    const server = echo("one", port)
    const where = place(server)
    const owner = spawn("sleep", ["600"], { stdio: "ignore" })
    cleanUps.push(() => owner.kill("SIGKILL"))
    await Servers.up([server], where, { ...plain, owner: owner.pid })
    expect(await idAt(port)).toBe("one")
    owner.kill("SIGKILL")
    expect(
      await eventually(
        () => idAt(port),
        (id) => id === undefined
      )
    ).toBeUndefined()
    // It stops answering a moment before it is gone.
    const { state } = await eventually(
      () => Servers.status(where, server),
      (status) => status.state === "down"
    )
    expect(state).toBe("down")
  })
})

test("compose.yaml has the servers of scripts/servers, in their versions and at their ports", () => {
  const compose = Bun.YAML.parse(readFileSync(join(import.meta.dir, "../compose.yaml"), "utf8")) as {
    readonly services: Record<string, { readonly image: string; readonly ports: ReadonlyArray<string> }>
  }
  const images = Object.entries(compose.services).map(([name, { image, ports }]) => [name, image, ports] as const)
  expect(images).toEqual(
    Servers.servers.map(({ name, image, ports }) => {
      const [port] = Object.values(ports)
      return [name, image, [`127.0.0.1:${port}:${port}`]]
    })
  )
})
