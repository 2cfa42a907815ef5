import { Context, Effect, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import type { Topic } from "@merkato/domain/kernel/Event"
import * as Consumers from "../events/Consumer.ts"
import * as Lag from "../events/Lag.ts"
import type { EventBus } from "../events/EventBus.ts"
import { EventStore, type RelaySignal } from "../events/EventStore.ts"
import * as Relay from "../events/Relay.ts"
import { Idempotency } from "../idempotency/Idempotency.ts"
import type { Policies } from "../policy/Policies.ts"
import * as Copy from "../projection/Copy.ts"
import * as CopyBuild from "../projection/CopyBuild.ts"
import * as PostgresProjection from "../projection/PostgresProjection.ts"
import type { Projection } from "../projection/Projection.ts"
import * as Migrations from "../postgres/Migrations.ts"
import * as Retention from "./Retention.ts"
import { unending } from "./Unending.ts"

/**
 * Whether this process does what is to be done once in a while, for all processes that are like it: takes over order
 * processes, ends reservations, asks about payments, deletes what is old. All may do it, and one of them has to.
 */
export const KeepsHouse = Context.Reference<boolean>("merkato/infra/KeepsHouse", { defaultValue: () => true })

/** What every context has of its own, in its own schema. */
export type Own = EventStore | Idempotency | RelaySignal

/** What a context stands on, whatever it is deployed with. */
export type Ground = SqlClient.SqlClient | EventBus | Policies

interface AnyContract {
  readonly contract: string
  readonly serve: Layer.Layer<never, unknown, unknown>
  readonly client: Layer.Layer<never, unknown, unknown>
}

type ClientOf<Needs extends ReadonlyArray<AnyContract>> = Layer.Success<Needs[number]["client"]>

/** A context, as deployments compose it: they know its name, what it needs, its migrations and its Layer. */
export interface BoundedContext<Name extends string, E, R> {
  readonly name: Name
  /** Contracts that somebody in the deployment must answer before it is ready. */
  readonly needs: ReadonlyArray<string>
  readonly topic: Topic | undefined
  /** What it reads of others' events, and as whom. */
  readonly reads: ReadonlyArray<Pick<Consumers.Consumer<never>, "group" | "topic" | "eventTypes" | "mode">>
  /** Read models that it builds of its own events, and can build anew. */
  readonly projections: ReadonlyArray<Projection>
  /** Those that lie on other servers, too, where these are named. */
  readonly copies: ReadonlyArray<Copy.Copy>
  /** What of its own it forgets when it is old. */
  readonly passing: ReadonlyArray<Retention.Passing>
  /** Brings the context's schema up to date; needs the rights to do so. */
  readonly migrate: Effect.Effect<void, Effect.Error<ReturnType<typeof Migrations.run>>, SqlClient.SqlClient>
  /** Answers the contract, relays its events, consumes those of others; wants a migrated schema. */
  readonly layer: Layer.Layer<never, E, R>
}

/** Keeps a copy up to date where there is a server for it; what is to be done once for all, by who keeps house. */
const keptUp = Effect.fnUntraced(function* (name: string, copy: Copy.Copy) {
  const store = yield* copy.store
  if (store === undefined) return
  const kept = { copy, store }
  const consumer = Copy.consumer(kept)
  yield* Effect.forkScoped(Consumers.run(name, consumer))
  if (!(yield* KeepsHouse)) return
  yield* Effect.forkScoped(unending(name, CopyBuild.keepBuilt(kept)))
  yield* Effect.forkScoped(unending("the bus", Lag.watch([consumer])))
})

/** Builds a context from the same few parts that every context has. */
export const make = <
  const Name extends string,
  Contract extends AnyContract,
  const Needs extends ReadonlyArray<AnyContract>,
  Handlers extends Layer.Layer<never, unknown, unknown>,
  UseCases extends Layer.Layer<never, unknown, unknown>,
  RConsumers = never,
  RBackground = never
>(
  name: Name,
  options: {
    readonly contract: Contract
    /** The contract answered, a line per operation. */
    readonly handlers: Handlers
    readonly useCases: UseCases
    /** Where its events go; a context without events has no topic, and then no tables of its own either. */
    readonly topic?: Topic
    readonly migrations?: URL
    readonly needs: Needs
    readonly consumers?: ReadonlyArray<Consumers.Consumer<RConsumers>>
    readonly projections?: ReadonlyArray<Projection>
    readonly copies?: ReadonlyArray<Copy.Copy>
    /** What of its own it forgets when it is old. */
    readonly passing?: ReadonlyArray<Retention.Passing>
    /** Work that goes on by itself; forked with the context and ended with it. */
    readonly background?: Effect.Effect<unknown, never, RBackground>
  }
) => {
  const { topic, projections = [], copies = [] } = options
  const consumers: ReadonlyArray<Consumers.Consumer<RConsumers | SqlClient.SqlClient>> = [
    ...(options.consumers ?? []),
    ...projections.map(PostgresProjection.consumer)
  ]
  const own =
    topic === undefined
      ? Layer.empty
      : Layer.mergeAll(EventStore.layer(name), Idempotency.layer(name)).pipe(
          Layer.provideMerge(Relay.layer({ schema: name, topic, producer: Relay.producerOf(name) }))
        )
  const running = Layer.effectDiscard(
    Effect.gen(function* () {
      yield* Retention.settings(options.passing ?? [])
      for (const consumer of consumers) yield* Effect.forkScoped(Consumers.run(name, consumer))
      for (const copy of copies) yield* keptUp(name, copy)
      if (!(yield* KeepsHouse)) return
      if (options.background !== undefined) yield* Effect.forkScoped(unending(name, options.background))
      if (topic !== undefined) yield* Effect.forkScoped(unending(name, Retention.run(name, options.passing ?? [])))
    })
  )
  const served = options.contract.serve.pipe(Layer.provide(options.handlers))
  const clients = options.needs.map((need) => need.client)
  const layer = Layer.mergeAll(served, running).pipe(
    Layer.provide(options.useCases),
    Layer.provide(own),
    Layer.provide(clients.reduce((all, client) => Layer.merge(all, client), Layer.empty))
  )
  type Provided = Layer.Success<Handlers> | Layer.Success<UseCases> | Own | ClientOf<Needs>
  type Required =
    | Layer.Services<Contract["serve"]>
    | Layer.Services<Handlers>
    | Layer.Services<UseCases>
    | Layer.Services<Needs[number]["client"]>
    | RConsumers
    | RBackground
    | Ground
  return {
    name,
    needs: options.needs.map((need) => need.contract),
    topic,
    reads: consumers.map(({ group, topic, eventTypes, mode }) => ({ group, topic, eventTypes, mode })),
    projections,
    copies,
    passing: options.passing ?? [],
    migrate:
      topic === undefined ? Effect.void : Migrations.run({ schema: name, folder: options.migrations, common: true }),
    // The clients are merged from a list, which the compiler cannot follow; the types above say what went in and out.
    layer: layer as Layer.Layer<never, Layer.Error<Handlers> | Layer.Error<UseCases>, Exclude<Required, Provided>>
  } satisfies BoundedContext<Name, unknown, unknown>
}
