// As in every deployment: schemas are compiled.
import "effect/schema/SchemaJITCompiler/enable"
import { Context, Effect, Layer } from "effect"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { stand } from "./guard/Guard.ts"
import { invariants } from "./invariants/index.ts"
import { Faults } from "./kernel/Faults.ts"
import { History } from "./kernel/History.ts"
import { stream } from "./kernel/Prng.ts"
import { real } from "./kernel/RealTime.ts"
import { type SimProcess, World } from "./kernel/World.ts"
import * as Actors from "./model/Actors.ts"
import * as Housekeeping from "./model/Housekeeping.ts"
import { Memory } from "./model/Memory.ts"
import * as Plan from "./model/Plan.ts"
import { type Clients, clients, contracts } from "./shop/Contracts.ts"
import { Network } from "./shop/Network.ts"
import { ProviderBook } from "./shop/ProviderBook.ts"
import * as ShopProcess from "./shop/ShopProcess.ts"
import * as Topology from "./shop/Topology.ts"
import { VirtualBus } from "./shop/VirtualBus.ts"
import { misfortune } from "./Misfortune.ts"
import { lockRudely } from "./Operator.ts"
import { comeToRest } from "./Rest.ts"
import { Gate } from "./wire/Gate.ts"
import type { Server } from "./wire/Server.ts"
import type { Settings } from "./Settings.ts"

/** A broken promise: which, and what breaks it. */
export interface Problem {
  readonly invariant: string
  readonly details: ReadonlyArray<string>
}

export interface Outcome {
  readonly seed: number
  /** The whole history, as a hash. */
  readonly hash: string
  readonly problems: ReadonlyArray<Problem>
  readonly topology: string
  /** How often what happened. */
  readonly counts: Readonly<Record<string, number>>
  readonly answers: Readonly<Record<string, number>>
  readonly trace: ReadonlyArray<string>
  /** Of this process, in user mode: tells the price of a run also on a machine that is busy. */
  readonly cpuMs: number
  readonly ms: number
}

/**
 * Empties the shop's tables. By TRUNCATE, since where a row lies must not depend on the runs before; only those that have
 * pages, since each costs new files. The catalogue is cleaned by hand, because the server does not do it by itself.
 */
const reset = async (server: Server) => {
  const used = await server.query(
    `select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
       and c.relname not in ('migrations', 'common_migrations', 'warehouses') and pg_relation_size(c.oid) > 0 order by 1`
  )
  if (used.length > 0) await server.query(`truncate ${used.map(([name]) => name).join(", ")} cascade`)
  await server.query(
    `select setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false) from pg_sequences
     where last_value is not null order by 1`
  )
  await server.query("vacuum pg_class")
  await server.forgetPlans()
}

/** One life of the shop: furnished, used while everything goes wrong, healed, come to rest, and audited. */
export const run = async (server: Server, settings: Settings): Promise<Outcome> => {
  const begun = real.now()
  const cpu = process.cpuUsage()
  await reset(server)
  const { seed } = settings
  const history = new History()
  const faults = new Faults(seed, new Set(settings.without))
  const world = new World(seed, history, faults)
  const gate = new Gate(world, server)
  const bus = new VirtualBus(world)
  const books = [new ProviderBook("soap"), new ProviderBook("rest")] as const
  const memory = new Memory()
  const hosts: Array<ShopProcess.Host> = []
  const pricing = new Set<SimProcess>()
  const network = new Network(world, () => hosts)
  const surroundings = { world, gate, network, bus, books, connections: settings.alone ? 1 : ShopProcess.connections }
  const topology = settings.alone ? Topology.alone : Topology.choose(stream(seed, "topology"))
  const guard = stand(world)
  const extra = new Map<string, number>()
  const count = (what: string) => extra.set(what, (extra.get(what) ?? 0) + 1)
  const problems: Array<Problem> = []

  try {
    faults.healed = true
    const start = (index: number, name: string) => {
      const host = ShopProcess.start(surroundings, name, topology[index] ?? [])
      hosts[index] = host
      if (host.contracts.has("pricing")) pricing.add(host.process)
    }
    topology.forEach((names, index) => {
      start(index, `${index}-${names.length === 1 ? names[0] : names.length}`)
    })

    const restart = (dead: ShopProcess.Host) => start(hosts.indexOf(dead), `${dead.process.name}'`)

    const edge = edgeOf(world, network)
    const outside = <A, E>(effect: Effect.Effect<A, E, Clients>) => {
      let ended = false
      Effect.runForkWith(Context.merge(world.outside.context, edge))(effect).addObserver((exit) => {
        ended = true
        if (exit._tag === "Failure") {
          problems.push({ invariant: "the model itself works", details: [String(exit.cause)] })
        }
      })
      return () => ended
    }

    await world.run(() => hosts.every((host) => host.calls !== undefined))
    const furnished = outside(Housekeeping.furnish(memory))
    await world.run(furnished)
    faults.healed = false

    world.afterStep = misfortune(world, hosts, restart)

    const chosen = settings.only === undefined ? undefined : new Set(settings.only)
    const commands = Plan.make(seed, settings.commands).filter(({ n }) => chosen?.has(n) ?? true)
    const actors = [...Plan.shoppers, ...Plan.administrators].map((actor) =>
      outside(
        Effect.forEach(
          commands.filter((command) => command.actor === actor),
          (command) =>
            Effect.andThen(
              Effect.sleep(command.afterMs),
              Effect.suspend(() => {
                count("commands")
                world.log(`  ${actor} begins ${command.n} ${command.kind}`)
                return Actors.perform(memory, command)
              })
            ),
          { discard: true }
        )
      )
    )
    const operator = world.spawn("operator")
    if (!settings.alone) lockRudely(surroundings, operator, memory)
    await world.run(() => actors.every((ended) => ended()))

    faults.healed = true
    world.log("  nothing goes wrong any more")
    world.kill(operator)
    for (const { process } of hosts) world.setClock(process, 0)
    const rested = await comeToRest(world, gate, bus, server, (held) =>
      world.run(outside(Housekeeping.tidyUp(memory, held)))
    )
    if (rested.length > 0) problems.push({ invariant: "the shop comes to rest", details: rested })

    for (const process of world.processes) if (process !== world.outside && process.alive) world.kill(process)
    world.dropTimers()
    world.afterStep = () => {}
    await world.run(() => world.idle && gate.waiting === 0)
  } finally {
    guard.lift()
  }

  const evidence = {
    query: (sql: string) => server.query(sql),
    books,
    bus,
    memory,
    pricingClocks: world.clocks.filter(({ process }) => pricing.has(process))
  }
  for (const { name, broken } of invariants) {
    const details = await broken(evidence)
    if (details.length > 0) problems.push({ invariant: name, details })
  }
  if (network.defects.length > 0) problems.push({ invariant: "nothing dies of a defect", details: network.defects })
  if (world.errors.length > 0)
    problems.push({ invariant: "no process finds a mistake of its own", details: world.errors })
  if (guard.leaks.length > 0) problems.push({ invariant: "nothing real is used past the gate", details: guard.leaks })

  const [sagas] = await server.query("select coalesce(sum(epoch - attempt), 0) from orders.sagas")
  const [late] = await server.query(
    "select count(*) from payments.payments where status = 'VOIDED' and reason = 'reservation_expired'"
  )
  const [sales] = await server.query(
    `select count(*), count(canceled_at), (
       select count(*) from orders.order_items i
       where exists (select from pricing.flash_sales s where (s.product_id, s.price_minor) = (i.product_id, i.price_minor)))
     from pricing.flash_sales`
  )
  const { counts } = gate
  return {
    seed,
    hash: history.digest(),
    problems,
    topology: topology.map((names) => (names.length > 3 ? `${names.length} contexts` : names.join("+"))).join(" | "),
    counts: Object.fromEntries<number>([
      ...extra,
      ["steps", world.steps],
      ["statements", counts.statements],
      ["lockWaits", counts.lockWaits],
      ["deadlocks", counts.deadlocks],
      ["cancels", counts.cancels],
      ["takeovers", Number(sagas?.[0])],
      ["lateCompensations", Number(late?.[0])],
      ["redeliveries", bus.redelivered],
      ["sales", Number(sales?.[0])],
      ["salesCanceled", Number(sales?.[1])],
      ["linesAtSalePrice", Number(sales?.[2])],
      ["rescues", counts.rescues],
      ["virtualSeconds", Math.round((world.now - Date.UTC(2026, 0, 5, 9)) / 1_000)],
      ...[...counts.errors].map(([code, times]) => [`error ${code}`, times] as const),
      ...faults.counts
    ]),
    answers: Object.fromEntries(memory.answers),
    trace: settings.trace || problems.length > 0 ? history.lines : [],
    cpuMs: process.cpuUsage(cpu).user / 1_000,
    ms: real.now() - begun
  }
}

/** Typed clients for those outside, over the network: what the edge of the shop has. */
const edgeOf = (world: World, network: Network): Context.Context<Clients> =>
  Effect.runSync(
    Effect.scoped(
      Layer.build(
        clients.pipe(Layer.provide(Layer.succeed(Switchboard, network.switchboardOf(world.outside, contracts))))
      )
    )
  )
