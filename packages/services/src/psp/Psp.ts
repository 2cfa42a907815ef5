import { Clock, Context, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"

const Attempt = Schema.Struct({
  status: Schema.Literals(["authorised", "captured", "declined", "voided"]),
  reason: Schema.NullOr(Schema.String)
})
type Attempt = typeof Attempt.Type
const decode = Schema.decodeUnknownEffect(Schema.Array(Attempt))

/** What the gateway does with a request, by its token: it is a test gateway, and does as it is told. */
export const behaviourOf = (token: string): "ok" | "declined" | "silent" | "lost" | "down" => {
  switch (token) {
    case "tok_ok":
    case "tok_soap_down":
      return "ok"
    case "tok_timeout":
      return "silent"
    case "tok_lost":
      return "lost"
    case "tok_all_down":
      return "down"
    default:
      return "declined"
  }
}

/** The book of the built-in test gateway. Every operation may be repeated; the attempt id is the key. */
export class Psp extends Context.Service<
  Psp,
  {
    readonly authorise: (request: {
      readonly attemptId: string
      readonly orderId: string
      readonly amount: number
      readonly currency: string
      readonly declined: string | null
    }) => Effect.Effect<Attempt>
    readonly find: (attemptId: string) => Effect.Effect<Attempt | undefined>
    readonly capture: (attemptId: string) => Effect.Effect<Attempt | undefined>
    readonly void: (attemptId: string) => Effect.Effect<Attempt>
  }
>()("merkato/psp/Psp") {
  static readonly layer = Layer.effect(
    Psp,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const one = Effect.fnUntraced(function* (rows: ReadonlyArray<unknown>) {
        return (yield* decode(rows))[0]
      })
      const now = Effect.map(Clock.currentTimeMillis, (millis) => new Date(millis))
      const find = Effect.fn("Psp.find")(function* (attemptId: string) {
        return yield* one(yield* sql`select status, reason from psp.attempts where attempt_id = ${attemptId}`)
      }, Effect.orDie)
      const must = Effect.fnUntraced(function* (attemptId: string) {
        return (yield* find(attemptId)) ?? (yield* Effect.die(new Error(`No attempt ${attemptId}`)))
      })

      const authorise = Effect.fn("Psp.authorise")(function* (request: {
        readonly attemptId: string
        readonly orderId: string
        readonly amount: number
        readonly currency: string
        readonly declined: string | null
      }) {
        const at = yield* now
        const rows = yield* sql`
          insert into psp.attempts (attempt_id, order_id, amount, currency, status, reason, created_at, updated_at)
          values (${request.attemptId}, ${request.orderId}, ${String(request.amount)}::numeric, ${request.currency},
            ${request.declined === null ? "authorised" : "declined"}, ${request.declined}, ${at}, ${at})
          on conflict (attempt_id) do nothing returning status, reason`
        return (yield* one(rows)) ?? (yield* must(request.attemptId))
      }, Effect.orDie)

      const capture = Effect.fn("Psp.capture")(function* (attemptId: string) {
        const rows = yield* sql`
          update psp.attempts set status = 'captured', updated_at = ${yield* now}
          where attempt_id = ${attemptId} and status = 'authorised' returning status, reason`
        return (yield* one(rows)) ?? (yield* find(attemptId))
      }, Effect.orDie)

      /** An attempt that never came is entered as voided, and a late authorisation finds it so. */
      const voidAttempt = Effect.fn("Psp.void")(function* (attemptId: string) {
        const at = yield* now
        yield* sql`
          insert into psp.attempts as a (attempt_id, order_id, amount, currency, status, reason, created_at, updated_at)
          values (${attemptId}, '', 0, '', 'voided', 'voided', ${at}, ${at})
          on conflict (attempt_id) do update set status = 'voided', reason = 'voided', updated_at = excluded.updated_at
            where a.status = 'authorised'`
        return yield* must(attemptId)
      }, Effect.orDie)

      return Psp.of({ authorise, find, capture, void: voidAttempt })
    })
  )
}
