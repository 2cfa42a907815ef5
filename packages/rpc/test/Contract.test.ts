import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  Cause,
  Clock,
  Context,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Schedule,
  Schema,
  Scope,
  Tracer
} from "effect"
import { FetchHttpClient, HttpMiddleware, HttpRouter, HttpServer } from "effect/http"
import { RpcClient, RpcGroup, RpcSerialization } from "effect/rpc"
import { SqlClient } from "effect/sql"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { UserId } from "@merkato/domain/kernel/Ids"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext, type RequestContextShape } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as BunHttpServer from "@merkato/infra/http/BunHttpServer"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { Contract, rpcPath, Switchboard } from "../src/contract/Contract.ts"
import { CallInsideTransaction, UnservedContract } from "../src/contract/ContractDefects.ts"
import { command, query } from "../src/contract/Operation.ts"
import { ServiceTokens } from "../src/contract/ServiceCall.ts"

/** There are not so many jars; a typed error with a list in it. */
class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", {
  jars: Schema.Array(Schema.Struct({ jar: Schema.String, left: Schema.Int }))
}) {}

class Empty extends Schema.TaggedError<Empty>()("Empty", { shelf: Schema.String }) {}

class Jar extends Schema.Class<Jar>("Jar")({
  jar: Schema.String,
  filledAt: Schema.DateTimeUtcFromString,
  note: Schema.NullOr(Schema.String)
}) {}

/** What a handler sees of the world. */
const View = Schema.Struct({
  own: Schema.String,
  callers: Schema.NullOr(Schema.String),
  userId: Schema.String,
  role: Schema.String,
  region: Schema.String,
  correlationId: Schema.String,
  traceParent: Schema.String,
  traceId: Schema.NullOr(Schema.String),
  inTransaction: Schema.Boolean
})

const PantryGroup = RpcGroup.make(
  query("Look", { payload: { shelf: Schema.String }, success: Schema.Array(Jar), errors: [Empty] }),
  command("Take", { payload: { count: Schema.Int }, success: Jar, errors: [NotEnough, Empty] }),
  query("Watch", { payload: { until: Schema.String }, success: Schema.Void, errors: [] }),
  command("Cook", { payload: { until: Schema.String }, success: Schema.Void, errors: [] }),
  command("Drop", { payload: {}, success: Schema.Void, errors: [] }),
  query("See", { payload: {}, success: View, errors: [] }),
  command("Weigh", { payload: {}, success: View, errors: [] })
)
class PantryRpc extends Contract<PantryRpc>()("pantry", PantryGroup) {}

/** Two contexts that need each other. */
const countdown = {
  payload: { from: Schema.Int },
  success: Schema.Array(Schema.String),
  errors: [Empty]
} as const
const PingGroup = RpcGroup.make(command("Ping", countdown))
const PongGroup = RpcGroup.make(command("Pong", countdown))
class PingRpc extends Contract<PingRpc>()("ping", PingGroup) {}
class PongRpc extends Contract<PongRpc>()("pong", PongGroup) {}

/** A service that each side has one of. */
class Own extends Context.Service<Own, string>()("test/Own") {}
/** A service that only the caller has. */
class Callers extends Context.Service<Callers, string>()("test/Callers") {}

/** What the pantry does for the tests, and what it notes for them. */
class Kitchen extends Context.Service<
  Kitchen,
  {
    readonly begun: (name: string) => Deferred.Deferred<void>
    readonly mayEnd: (name: string) => Deferred.Deferred<void>
    readonly ends: Map<string, "done" | "interrupted">
  }
>()("test/Kitchen") {
  static readonly layer = Layer.sync(Kitchen, () => {
    const named = () => {
      const known = new Map<string, Deferred.Deferred<void>>()
      return (name: string) => {
        const made = known.get(name) ?? Deferred.makeUnsafe<void>()
        known.set(name, made)
        return made
      }
    }
    return { begun: named(), mayEnd: named(), ends: new Map() }
  })
}

const filledAt = DateTime.makeUnsafe("2025-06-01T12:00:00.123Z")
const transactionKey = /^effect\/sql\/SqlClient\/TransactionConnection\//

const PantryHandlers = PantryGroup.toLayer(
  Effect.gen(function* () {
    const kitchen = yield* Kitchen
    const see = Effect.gen(function* () {
      const { principal, correlationId, traceParent } = yield* RequestContext
      const span = yield* Effect.option(Effect.currentSpan)
      const context = yield* Effect.context<Own>()
      return {
        own: Context.get(context, Own),
        callers: Option.getOrNull(Context.getOption(context, Callers)),
        userId: principal.userId,
        role: principal.role,
        region: principal.region,
        correlationId,
        traceParent,
        traceId: Option.getOrNull(
          Option.map(
            Option.filter(span, ({ sampled }) => sampled),
            ({ traceId }) => traceId
          )
        ),
        inTransaction: [...context.mapUnsafe.keys()].some((key) => transactionKey.test(key))
      }
    }).pipe(Effect.withSpan("see"))
    const work = ({ until }: { readonly until: string }) =>
      Deferred.succeed(kitchen.begun(until), undefined).pipe(
        Effect.andThen(Deferred.await(kitchen.mayEnd(until))),
        Effect.onExit((exit) =>
          Effect.sync(() => void kitchen.ends.set(until, Exit.isSuccess(exit) ? "done" : "interrupted"))
        )
      )
    return PantryGroup.of({
      Look: ({ shelf }) =>
        shelf === "top"
          ? Effect.succeed([
              new Jar({ jar: "plum", filledAt, note: null }),
              new Jar({ jar: "fig", filledAt, note: "☃" })
            ])
          : Effect.fail(new Empty({ shelf })),
      Take: ({ count }) =>
        count === 1
          ? Effect.succeed(new Jar({ jar: "plum", filledAt, note: null }))
          : Effect.fail(
              new NotEnough({
                jars: [
                  { jar: "plum", left: 1 },
                  { jar: "fig", left: 0 }
                ]
              })
            ),
      Watch: work,
      Cook: work,
      Drop: () => Effect.die(new TypeError("the jar slipped")),
      See: () => see,
      Weigh: () => see
    })
  })
).pipe(Layer.provide(Layer.succeed(Own, "the pantry's own")))

const PingHandlers = PingGroup.toLayer(
  Effect.gen(function* () {
    const pong = yield* PongRpc
    return PingGroup.of({
      Ping: ({ from }) =>
        from === 0
          ? Effect.fail(new Empty({ shelf: "ping" }))
          : Effect.map(pong.Pong({ from: from - 1 }), (rest) => [`ping ${from}`, ...rest])
    })
  })
)
const PongHandlers = PongGroup.toLayer(
  Effect.gen(function* () {
    const ping = yield* PingRpc
    return PongGroup.of({
      Pong: ({ from }) =>
        from === 0
          ? Effect.succeed(["pong 0"])
          : Effect.map(ping.Ping({ from: from - 1 }), (rest) => [`pong ${from}`, ...rest])
    })
  })
)

const folders: Array<string> = []
const keysIn = () => {
  const folder = mkdtempSync(join(tmpdir(), "merkato-contract-"))
  folders.push(folder)
  return folder
}
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })))

/** Keys of one shop; each call of `keysIn` makes another shop's. */
const tokensOf = (folder: string) =>
  Layer.effect(
    ServiceTokens,
    Effect.map(Tokens, (tokens) => ({ issue: tokens.issueForServices, verify: tokens.verifyService }))
  ).pipe(Layer.provideMerge(Tokens.layer), Layer.provide(KeyRing.layer(folder)))

let ours = ""
beforeAll(() => {
  ours = keysIn()
})

const clients = Layer.mergeAll(PantryRpc.client, PingRpc.client, PongRpc.client)
type Clients = Layer.Success<typeof clients>

/** Everything answered in one process. */
const serving = Layer.mergeAll(
  PantryRpc.serve.pipe(Layer.provide(PantryHandlers)),
  PingRpc.serve.pipe(Layer.provide(PingHandlers)),
  PongRpc.serve.pipe(Layer.provide(PongHandlers))
).pipe(Layer.provide(clients))

const inProcess = clients.pipe(Layer.provideMerge(serving), Layer.provideMerge(Switchboard.layer))

/** Another process that serves these routes, and where it is. */
const serverOf = <E, R>(routes: Layer.Layer<never, E, R>) =>
  Effect.map(
    Layer.build(
      Layer.fresh(
        HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
          Layer.provideMerge(BunHttpServer.layer({ port: 0, drainTimeout: Duration.millis(50) })),
          // As at the edge of every process of the shop: who is not sampled gets no spans.
          Layer.provideMerge(
            Layer.succeed(HttpMiddleware.TracerDisabledWhen, ({ headers }) =>
              (headers["traceparent"] ?? "").endsWith("-00")
            )
          )
        )
      )
    ),
    (context) => {
      const { address } = Context.get(context, HttpServer.HttpServer)
      return `http://127.0.0.1:${"port" in address ? address.port : 0}`
    }
  )

/** The contracts answered over HTTP by another process (its own switchboard, its own layers), and clients of it here. */
const overHttp = Layer.unwrap(
  Effect.gen(function* () {
    const baseUrl = yield* serverOf(
      Layer.mergeAll(PantryRpc.http, PingRpc.http, PongRpc.http).pipe(
        Layer.provide(serving),
        Layer.provide(Switchboard.layer),
        Layer.provide(tokensOf(ours))
      )
    )
    return clients.pipe(
      Layer.provideMerge(
        Layer.mergeAll(PantryRpc.remote(baseUrl), PingRpc.remote(baseUrl), PongRpc.remote(baseUrl)).pipe(
          Layer.provide(FetchHttpClient.layer),
          Layer.provide(tokensOf(ours))
        )
      ),
      Layer.provideMerge(Layer.fresh(Switchboard.layer))
    )
  })
)

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  effect.pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.runPromise)

const asAda: RequestContextShape = {
  principal: new Principal({ userId: UserId.make("ADA"), role: "shopper", region: "in" }),
  correlationId: "correlation-1",
  traceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
}

/** The defect that a call ended with. */
const defectOf = <A, E, R>(call: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.exit(call), (exit) =>
    Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isDieReason).map(({ defect }) => defect)[0] : undefined
  )

for (const [where, deployment] of [
  ["in one process", inProcess],
  ["over HTTP", overHttp]
] as const) {
  describe(`a contract that is answered ${where}`, () => {
    /** The clients, and the kitchen of the process that answers. */
    const inKitchen = <A>(
      test: (kitchen: Kitchen["Service"]) => Effect.Effect<A, unknown, Clients | Switchboard | Scope.Scope>
    ) =>
      run(
        Effect.gen(function* () {
          const kitchen = Context.get(yield* Layer.build(Kitchen.layer), Kitchen)
          const context = yield* Effect.provideService(Layer.build(Layer.fresh(deployment)), Kitchen, kitchen)
          return yield* Effect.provideContext(
            test(kitchen),
            Context.merge(yield* Effect.context<Scope.Scope>(), context)
          )
        }).pipe(Effect.withTracerEnabled(false))
      )

    test("gives its answers as values of the domain", () =>
      inKitchen(() =>
        Effect.gen(function* () {
          const pantry = yield* PantryRpc
          const jars = yield* pantry.Look({ shelf: "top" })
          expect(jars).toEqual([
            new Jar({ jar: "plum", filledAt, note: null }),
            new Jar({ jar: "fig", filledAt, note: "☃" })
          ])
          expect(jars.every((jar) => jar instanceof Jar)).toBe(true)
          expect(yield* pantry.Take({ count: 1 })).toEqual(new Jar({ jar: "plum", filledAt, note: null }))
        })
      ))

    test("gives its refusals as typed errors, of queries and of commands", () =>
      inKitchen(() =>
        Effect.gen(function* () {
          const pantry = yield* PantryRpc
          const empty = yield* Effect.flip(pantry.Look({ shelf: "bottom" }))
          expect(empty).toBeInstanceOf(Empty)
          expect(empty).toEqual(new Empty({ shelf: "bottom" }))
          const short = yield* Effect.flip(pantry.Take({ count: 7 }))
          expect(short).toBeInstanceOf(NotEnough)
          expect(short).toEqual(
            new NotEnough({
              jars: [
                { jar: "plum", left: 1 },
                { jar: "fig", left: 0 }
              ]
            })
          )
        })
      ))

    test("is handled with the services of its own, for whoever asks", () =>
      inKitchen(() =>
        Effect.gen(function* () {
          const pantry = yield* PantryRpc
          for (const ask of [pantry.See, pantry.Weigh]) {
            const seen = yield* ask({}).pipe(
              Effect.provideService(RequestContext, asAda),
              Effect.provideService(Own, "the caller's"),
              Effect.provideService(Callers, "nobody else's business")
            )
            expect(seen).toEqual({
              own: "the pantry's own",
              callers: null,
              userId: "ADA",
              role: "shopper",
              region: "in",
              correlationId: "correlation-1",
              traceParent: asAda.traceParent,
              traceId: null,
              inTransaction: false
            })
          }
        })
      ))

    test("is part of its caller's trace when that is sampled, and silent when it is not", () =>
      run(
        Effect.gen(function* () {
          const spans: Array<Tracer.NativeSpan> = []
          const tracer = Tracer.make({
            span: (options) => {
              const span = new Tracer.NativeSpan(options)
              spans.push(span)
              return span
            }
          })
          const context = yield* Layer.build(Layer.fresh(deployment)).pipe(
            Effect.provideService(Kitchen, Context.get(yield* Layer.build(Kitchen.layer), Kitchen)),
            Effect.provideService(Tracer.Tracer, tracer)
          )
          const pantry = Context.get(context, PantryRpc)
          const traceId = asAda.traceParent.slice(3, 35)
          const edge = Tracer.externalSpan({ traceId, spanId: asAda.traceParent.slice(36, 52), sampled: true })
          for (const ask of [pantry.See, pantry.Weigh]) {
            const seen = yield* ask({}).pipe(
              Effect.provideService(RequestContext, asAda),
              Effect.withParentSpan(edge),
              Effect.provideService(Tracer.Tracer, tracer)
            )
            expect(seen.traceId).toBe(traceId)
            const unsampled = { ...asAda, traceParent: asAda.traceParent.replace(/01$/, "00") }
            const quiet = yield* ask({}).pipe(
              Effect.provideService(RequestContext, unsampled),
              Effect.withTracerEnabled(false),
              Effect.provideService(Tracer.Tracer, tracer)
            )
            expect(quiet.traceParent).toBe(unsampled.traceParent)
          }
          expect(spans.filter(({ name }) => name === "see").map((span) => span.traceId)).toEqual([traceId, traceId])
          expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([traceId]))
        })
      ))

    test("survives a defect: the one who asked gets a defect, the others their answers", () =>
      inKitchen((kitchen) =>
        Effect.gen(function* () {
          const pantry = yield* PantryRpc
          const cooking = yield* Effect.forkScoped(pantry.Cook({ until: "soup" }))
          const watching = yield* Effect.forkScoped(pantry.Watch({ until: "clock" }))
          yield* Deferred.await(kitchen.begun("soup"))
          yield* Deferred.await(kitchen.begun("clock"))
          expect(String(yield* defectOf(pantry.Drop({})))).toContain("the jar slipped")
          expect(String(yield* defectOf(pantry.Drop({})))).toContain("the jar slipped")
          yield* Deferred.succeed(kitchen.mayEnd("soup"), undefined)
          yield* Deferred.succeed(kitchen.mayEnd("clock"), undefined)
          yield* Fiber.join(cooking)
          yield* Fiber.join(watching)
          expect(yield* pantry.Look({ shelf: "top" })).toHaveLength(2)
        })
      ))

    test("goes on with a command whose caller went away, and ends a query with its caller", () =>
      inKitchen((kitchen) =>
        Effect.gen(function* () {
          const pantry = yield* PantryRpc
          const cooking = yield* Effect.forkScoped(pantry.Cook({ until: "soup" }))
          const watching = yield* Effect.forkScoped(pantry.Watch({ until: "clock" }))
          yield* Deferred.await(kitchen.begun("soup"))
          yield* Deferred.await(kitchen.begun("clock"))
          yield* Fiber.interrupt(cooking)
          yield* Fiber.interrupt(watching)
          yield* eventually(() => kitchen.ends.has("clock"))
          expect(kitchen.ends).toEqual(new Map([["clock", "interrupted"]]))
          yield* Deferred.succeed(kitchen.mayEnd("soup"), undefined)
          yield* eventually(() => kitchen.ends.has("soup"))
          expect(kitchen.ends.get("soup")).toBe("done")
        })
      ))

    test("may need a contract that needs it", () =>
      inKitchen(() =>
        Effect.gen(function* () {
          const ping = yield* PingRpc
          expect(yield* ping.Ping({ from: 5 })).toEqual(["ping 5", "pong 4", "ping 3", "pong 2", "ping 1", "pong 0"])
          expect(yield* Effect.flip(ping.Ping({ from: 4 }))).toEqual(new Empty({ shelf: "ping" }))
        })
      ))
  })
}

const eventually = (so: () => boolean) =>
  Effect.repeat(Effect.sync(so), { until: (yes) => yes, schedule: Schedule.spaced("10 millis"), times: 500 })

describe("a contract that nobody answers", () => {
  const alone = clients.pipe(Layer.provideMerge(Switchboard.layer))

  test("is a defect at the call, and not among the connected ones until somebody does", () =>
    run(
      Effect.gen(function* () {
        const pantry = yield* PantryRpc
        const switchboard = yield* Switchboard
        expect(yield* switchboard.connected).toEqual([])
        const defect = yield* defectOf(pantry.Look({ shelf: "top" }))
        expect(defect).toBeInstanceOf(UnservedContract)
        expect(defect).toMatchObject({ contract: "pantry", message: expect.stringContaining("pantry") })
        yield* Layer.build(PantryRpc.serve.pipe(Layer.provide(PantryHandlers), Layer.provide(Kitchen.layer)))
        expect(yield* switchboard.connected).toEqual(["pantry"])
        expect(yield* pantry.Look({ shelf: "top" })).toHaveLength(2)
      }).pipe(Effect.provide(alone))
    ))
})

describe("a call inside a database transaction", () => {
  /** Somebody with a database of their own, who calls the pantry. */
  const withDatabases = <A>(
    test: (
      one: SqlClient.SqlClient,
      two: SqlClient.SqlClient,
      pantry: PantryRpc["Service"]
    ) => Effect.Effect<A, unknown>
  ) =>
    run(
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        const database = (name: string) =>
          Effect.map(
            Layer.build(Layer.fresh(Database.layer({ url, maxConnections: 2, applicationName: name }))),
            (context) => Context.get(context, SqlClient.SqlClient)
          )
        const one = yield* database("one")
        const two = yield* database("two")
        const context = yield* Layer.build(inProcess).pipe(
          Effect.provide(Kitchen.layer),
          Effect.provideService(SqlClient.SqlClient, one)
        )
        return yield* test(one, two, Context.get(context, PantryRpc))
      }).pipe(Effect.withTracerEnabled(false))
    )

  test("is a defect, of a query and of a command, and nothing happens", () =>
    withDatabases((sql, _, pantry) =>
      Effect.gen(function* () {
        const looking = yield* defectOf(sql.withTransaction(pantry.Look({ shelf: "top" })))
        expect(looking).toBeInstanceOf(CallInsideTransaction)
        expect(looking).toMatchObject({ contract: "pantry", operation: "Look" })
        const taking = yield* defectOf(sql.withTransaction(Effect.andThen(sql`select 1`, pantry.Take({ count: 1 }))))
        expect(taking).toBeInstanceOf(CallInsideTransaction)
        expect(yield* pantry.Take({ count: 1 })).toBeInstanceOf(Jar)
      })
    ))

  test("is a defect in every context, whichever of them was there when the client was made", () =>
    withDatabases((_, another, pantry) =>
      Effect.gen(function* () {
        const call = Database.transaction(pantry.Take({ count: 1 })).pipe(
          Effect.provideService(SqlClient.SqlClient, another)
        )
        expect(yield* defectOf(call)).toBeInstanceOf(CallInsideTransaction)
      })
    ))

  test("would not become part of it: the handler sees nothing of the caller's transaction", () =>
    run(
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        const sql = Context.get(
          yield* Layer.build(Database.layer({ url, maxConnections: 2, applicationName: "caller" })),
          SqlClient.SqlClient
        )
        // A client that knows of no database cannot refuse.
        const pantry = Context.get(yield* Effect.provide(Layer.build(inProcess), Kitchen.layer), PantryRpc)
        const seen = yield* sql.withTransaction(Effect.all([pantry.See({}), pantry.Weigh({})]))
        expect(seen.map(({ inTransaction }) => inTransaction)).toEqual([false, false])
      }).pipe(Effect.withTracerEnabled(false))
    ))
})

describe("over HTTP", () => {
  let baseUrl = ""
  let calls = 0
  const scope = Scope.makeUnsafe()
  beforeAll(() =>
    Effect.gen(function* () {
      const counted = Layer.effectDiscard(
        Effect.gen(function* () {
          const switchboard = yield* Switchboard
          const known = switchboard.calls("pantry") ?? new Map()
          yield* switchboard.connect(
            "pantry",
            new Map(
              [...known].map(([tag, call]) => [
                tag,
                (payload: unknown) =>
                  Effect.andThen(
                    Effect.sync(() => void (calls += 1)),
                    call(payload)
                  )
              ])
            )
          )
        })
      ).pipe(Layer.provideMerge(PantryRpc.serve.pipe(Layer.provide(PantryHandlers))))
      baseUrl = yield* serverOf(
        PantryRpc.http.pipe(
          Layer.provide(counted),
          Layer.provide(Switchboard.layer),
          Layer.provide(Kitchen.layer),
          Layer.provide(tokensOf(ours))
        )
      )
    }).pipe(Effect.provide(Logger.layer([])), Scope.provide(scope), Effect.runPromise)
  )
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  /** Asks the pantry with such tokens. */
  const asking = (tokens: Layer.Layer<ServiceTokens, unknown>) =>
    run(
      Effect.gen(function* () {
        const pantry = yield* PantryRpc
        const before = calls
        const exit = yield* Effect.exit(pantry.Look({ shelf: "top" }))
        return { exit, handled: calls - before }
      }).pipe(
        Effect.provide(
          PantryRpc.client.pipe(
            Layer.provideMerge(
              PantryRpc.remote(baseUrl).pipe(Layer.provide(FetchHttpClient.layer), Layer.provide(tokens))
            ),
            Layer.provide(Layer.fresh(Switchboard.layer))
          )
        ),
        Effect.withTracerEnabled(false)
      )
    )

  const issuing = (issue: Effect.Effect<string, unknown, Tokens>, folder: string) =>
    Layer.effect(
      ServiceTokens,
      Effect.gen(function* () {
        const token = yield* issue
        return { issue: Effect.succeed(token), verify: () => Effect.void }
      })
    ).pipe(Layer.provide(tokensOf(folder)))

  const forServices = Effect.flatMap(Tokens, (tokens) => tokens.issueForServices)

  test("a caller with a token of the shop's services is heard", async () => {
    const { exit, handled } = await asking(tokensOf(ours))
    expect(Exit.isSuccess(exit)).toBe(true)
    expect(handled).toBe(1)
  })

  const refused: ReadonlyArray<readonly [who: string, tokens: () => Layer.Layer<ServiceTokens, unknown>]> = [
    ["with an empty token", () => issuing(Effect.succeed(""), ours)],
    ["with nonsense for a token", () => issuing(Effect.succeed("a.b.c"), ours)],
    ["with a token of another shop's key", () => issuing(forServices, keysIn())],
    [
      "with a token that has expired",
      () =>
        issuing(
          Effect.flatMap(Clock.Clock, (clock) => Effect.provideService(forServices, Clock.Clock, minutesAgo(clock, 5))),
          ours
        )
    ],
    [
      "with a shopper's token, which is not for services",
      () =>
        issuing(
          Effect.flatMap(Tokens, (tokens) => tokens.issue(asAda.principal, 600)),
          ours
        )
    ]
  ]
  for (const [who, tokens] of refused) {
    test(`a caller ${who} is refused before anything happens`, async () => {
      const { exit, handled } = await asking(tokens())
      expect(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "answered").toContain("Unauthenticated")
      expect(handled).toBe(0)
    })
  }

  /** A caller that speaks the protocol and leaves headers out. */
  const bare = (headers: Readonly<Record<string, string>>) =>
    run(
      Effect.gen(function* () {
        const client = yield* RpcClient.make(PantryGroup)
        const before = calls
        const exit = yield* Effect.exit(RpcClient.withHeaders(client.Look({ shelf: "top" }), headers))
        return { problem: Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "answered", handled: calls - before }
      }).pipe(
        Effect.provide(
          RpcClient.layerProtocolHttp({ url: baseUrl + rpcPath("pantry") }).pipe(
            Layer.provide(RpcSerialization.layerSchemaBinary()),
            Layer.provide(FetchHttpClient.layer)
          )
        ),
        Effect.withTracerEnabled(false)
      )
    )

  test("a caller without a token is refused before anything happens", async () => {
    expect(await bare({})).toEqual({ problem: expect.stringContaining("Unauthenticated"), handled: 0 })
    expect(await bare({ authorization: "Basic YWRhOmFkYQ==" })).toEqual({
      problem: expect.stringContaining("Unauthenticated"),
      handled: 0
    })
  })

  test("a caller that does not say for whom it asks is refused before anything happens", async () => {
    const token = await run(Effect.provide(forServices, tokensOf(ours)))
    const authorization = `Bearer ${token}`
    for (const headers of [
      { authorization },
      { authorization, "merkato-principal": "{}" },
      { authorization, "merkato-principal": '{"userId":"ADA","role":"emperor","region":"us"}' }
    ]) {
      expect(await bare(headers)).toEqual({ problem: expect.stringContaining("Unauthenticated"), handled: 0 })
    }
  })
})

describe("a peer", () => {
  /** Asks a pantry at an address; whatever takes long takes a fiftieth of it. */
  const askingAt = (baseUrl: string) =>
    run(
      Effect.gen(function* () {
        const pantry = yield* PantryRpc
        const clock = yield* Clock.Clock
        return yield* Effect.flip(pantry.Look({ shelf: "top" })).pipe(
          Effect.provideService(Clock.Clock, faster(clock, 50))
        )
      }).pipe(
        Effect.provide(
          PantryRpc.client.pipe(
            Layer.provideMerge(
              PantryRpc.remote(baseUrl).pipe(Layer.provide(FetchHttpClient.layer), Layer.provide(tokensOf(ours)))
            ),
            Layer.provide(Switchboard.layer)
          )
        ),
        Effect.withTracerEnabled(false)
      )
    )

  const unavailable = new ServiceUnavailable({ service: "pantry", retryAfterSeconds: 1 })

  /** Something that is no pantry, at a port. */
  const imposter = async (behave: (socket: Socket) => void) => {
    const server = createServer((socket) => {
      socket.on("error", () => {})
      behave(socket)
    })
    const port = await new Promise<number>((resolve) =>
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resolve(typeof address === "object" && address !== null ? address.port : 0)
      })
    )
    return { url: `http://127.0.0.1:${port}`, close: () => server.close() }
  }

  test("that is not there is a service that is unavailable", async () => {
    const { url, close } = await imposter(() => {})
    close()
    expect(await askingAt(url)).toEqual(unavailable)
  })

  for (const [what, behave] of [
    ["hangs up", (socket) => void socket.once("data", () => socket.destroy())],
    [
      "answers that it cannot",
      (socket) =>
        void socket.once("data", () =>
          socket.end("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        )
    ],
    ["says nothing for too long", () => {}],
    [
      "talks nonsense",
      (socket) =>
        void socket.once("data", () =>
          socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nnonsense!")
        )
    ]
  ] as ReadonlyArray<readonly [string, (socket: Socket) => void]>) {
    test(`that ${what} is a service that is unavailable`, async () => {
      const { url, close } = await imposter(behave)
      expect(await askingAt(url)).toEqual(unavailable)
      close()
    })
  }
})

/** The same clock, some minutes ago. */
const minutesAgo = (clock: Clock.Clock, minutes: number): Clock.Clock => ({
  ...faster(clock, 1),
  currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now - minutes * 60_000),
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - minutes * 60_000
})

/** A clock on which waiting is over sooner. */
const faster = (clock: Clock.Clock, times: number): Clock.Clock => ({
  currentTimeMillis: clock.currentTimeMillis,
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
  currentTimeNanos: clock.currentTimeNanos,
  currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
  monotonicTimeNanos: clock.monotonicTimeNanos,
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
  sleep: (duration) => clock.sleep(Duration.millis(Duration.toMillis(duration) / times))
})
