import { Clock, Context, Effect, Layer, Schema } from "effect"
import { SqlClient, type SqlError, type Statement } from "effect/sql"
import { dayMs } from "@merkato/domain/kernel/Day"
import { IdempotencyKeyReused, RequestInProgress } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { canonicalJson, sha256 } from "./Digest.ts"

/** How long an answer is kept, in milliseconds: 24 h (contracts: Idempotency-Key). */
export const keptMs = dayMs

/** Which request this is: the same caller, operation and key may mean only one payload. */
export interface Keyed {
  readonly caller: string
  readonly operation: string
  readonly key: string
  readonly payloadHash: string
}

/** What an operation answered, as it is kept: a success, or a refusal that came from the domain. */
export const answerOf = <A extends Schema.Top, E extends Schema.Top>(success: A, refusal: E) =>
  Schema.Union([
    Schema.Struct({ _tag: Schema.tag("Done"), value: success }),
    Schema.Struct({ _tag: Schema.tag("Refused"), refusal })
  ])

type Answer<A, E> = { readonly _tag: "Done"; readonly value: A } | { readonly _tag: "Refused"; readonly refusal: E }

/** A refusal that was the first answer already. */
export interface Replayed<E> {
  readonly _tag: "Replayed"
  readonly refusal: E
}

/** Answers again what was answered first. */
export const replay = <A, E>(
  first: Answer<A, E>
): Effect.Effect<{ readonly answer: A; readonly replayed: boolean }, Replayed<E>> =>
  first._tag === "Done"
    ? Effect.succeed({ answer: first.value, replayed: true })
    : Effect.fail({ _tag: "Replayed", refusal: first.refusal })

/** What is known of a request: nothing; that it runs until `leaseUntil`; or its answer. */
export type Found =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Running"; readonly leaseUntil: number }
  | { readonly _tag: "Answered"; readonly answer: unknown }

/**
 * The one idempotency mechanism: (caller, operation, key), the hash of the payload, and the answer, written in the
 * transaction of the effect. Only a 2xx and a refusal of the domain are kept; what was merely unlucky may be tried again.
 */
export class Idempotency extends Context.Service<
  Idempotency,
  {
    /** The request of the caller at hand. The payload is hashed in canonical form. */
    readonly keyed: (operation: string, key: string, payload: unknown) => Effect.Effect<Keyed>
    readonly find: (request: Keyed) => Effect.Effect<Found, IdempotencyKeyReused | SqlError.SqlError>
    /**
     * A common table expression `kept (caller, operation, key)` that writes those of the answers whose key is free (or its
     * record older than 24 h); the rest of the statement is for what is in it. No two may have the same key. The
     * statement waits at most `lockTimeoutMs` for a lock, unless that is 0.
     */
    readonly keeping: (
      answers: ReadonlyArray<{ readonly request: Keyed; readonly answer: unknown }>,
      lockTimeoutMs: number
    ) => Effect.Effect<Statement.Fragment>
    /** Writes the answer if the key is free; whether it was. */
    readonly keep: (request: Keyed, answer: unknown) => Effect.Effect<boolean, SqlError.SqlError>
    /**
     * Takes the key for `leaseMs` before anything happens that must not happen twice; true when it was free, or the lease
     * of an earlier try is over. Then the work goes on where that try left it.
     */
    readonly claim: (
      request: Keyed,
      leaseMs: number
    ) => Effect.Effect<boolean, IdempotencyKeyReused | SqlError.SqlError>
    /**
     * The same for several, as a common table expression `claimed (caller, operation, key)` over the rows of `given`
     * (caller, operation, key, payload_hash, claimed_at, lease_until), no two of one key.
     */
    readonly claiming: (given: Statement.Fragment) => Statement.Fragment
    /** Ends a claim with its answer. */
    readonly settle: (request: Keyed, answer: unknown) => Effect.Effect<void, SqlError.SqlError>
    /**
     * The same for several, as common table expressions `own_claims`, `settled` and `abandoned` over the rows of `given`
     * (caller, operation, key, payload_hash, answer). A claim whose answer is null ends without one: the key is free again.
     */
    readonly answering: (given: Statement.Fragment) => Statement.Fragment
  }
>()("merkato/infra/Idempotency") {
  static readonly layer = (schema: string) =>
    Layer.effect(
      Idempotency,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const table = sql(`${schema}.idempotency`)
        const where = ({ caller, operation, key }: Keyed) =>
          sql`caller = ${caller} and operation = ${operation} and key = ${key}`
        /** The request's own claim: after 24 h the key may be another's, whatever still goes on under it. */
        const claimed = (request: Keyed) =>
          sql`${where(request)} and payload_hash = ${request.payloadHash} and answer is null`

        const keyed: Idempotency["Service"]["keyed"] = (operation, key, payload) =>
          Effect.map(RequestContext, ({ principal }) => ({
            caller: principal.userId,
            operation,
            key,
            payloadHash: sha256(canonicalJson(payload))
          }))

        const find: Idempotency["Service"]["find"] = Effect.fnUntraced(function* (request) {
          const oldest = new Date((yield* Clock.currentTimeMillis) - keptMs)
          const [row] = yield* sql<{ payloadHash: string; answer: unknown; leaseUntil: Date | null }>`
            select payload_hash as "payloadHash", answer, lease_until as "leaseUntil" from ${table}
            where ${where(request)} and created_at > ${oldest}`
          if (row === undefined) return { _tag: "Nothing" }
          if (row.payloadHash !== request.payloadHash) return yield* new IdempotencyKeyReused({ key: request.key })
          return row.answer === null
            ? { _tag: "Running", leaseUntil: row.leaseUntil?.getTime() ?? 0 }
            : { _tag: "Answered", answer: row.answer }
        })

        const keeping: Idempotency["Service"]["keeping"] = Effect.fnUntraced(function* (answers, lockTimeoutMs) {
          const now = yield* Clock.currentTimeMillis
          // In the order of their keys: two statements with the same ones wait for each other, and not both.
          return sql`kept as (
            insert into ${table} as known (caller, operation, key, payload_hash, answer, lease_until, created_at)
            select caller, operation, key, payload_hash, answer, null, ${new Date(now)} from unnest(
              ${answers.map(({ request }) => request.caller)}::text[],
              ${answers.map(({ request }) => request.operation)}::text[],
              ${answers.map(({ request }) => request.key)}::text[],
              ${answers.map(({ request }) => request.payloadHash)}::text[],
              ${answers.map(({ answer }) => JSON.stringify(answer))}::text[]::jsonb[]
            ) as given (caller, operation, key, payload_hash, answer),
              set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
            order by caller, operation, key
            on conflict (caller, operation, key) do update
              set payload_hash = excluded.payload_hash, answer = excluded.answer, lease_until = null,
                created_at = excluded.created_at
              where known.created_at <= ${new Date(now - keptMs)}
            returning caller, operation, key
          )`
        })

        const keep = Effect.fnUntraced(function* (request: Keyed, answer: unknown) {
          const rows = yield* sql`with ${yield* keeping([{ request, answer }], 0)} select from kept`
          return rows.length > 0
        })

        // In the order of their keys, as in `keeping`.
        const claiming: Idempotency["Service"]["claiming"] = (given) => sql`claimed as (
            insert into ${table} as known (caller, operation, key, payload_hash, answer, lease_until, created_at)
            select caller, operation, key, payload_hash, null, lease_until, claimed_at from ${given}
            order by caller, operation, key
            on conflict (caller, operation, key) do update
              set payload_hash = excluded.payload_hash, answer = null, lease_until = excluded.lease_until,
                created_at = excluded.created_at
              where known.created_at <= excluded.created_at - interval '1 millisecond' * ${keptMs}::int
                or (known.answer is null and known.lease_until < excluded.created_at
                  and known.payload_hash = excluded.payload_hash)
            returning caller, operation, key
          )`

        const claim: Idempotency["Service"]["claim"] = Effect.fnUntraced(function* (request, leaseMs) {
          const now = yield* Clock.currentTimeMillis
          const given = sql`(values (${request.caller}, ${request.operation}, ${request.key}, ${request.payloadHash},
            ${new Date(now)}::timestamptz, ${new Date(now + leaseMs)}::timestamptz)
          ) as given (caller, operation, key, payload_hash, claimed_at, lease_until)`
          const rows = yield* sql`with ${claiming(given)} select from claimed`
          return rows.length > 0
        })

        const answering: Idempotency["Service"]["answering"] = (given) => sql`own_claims as materialized (
            select g.* from (select * from ${given} order by caller, operation, key) g cross join lateral (
              select from ${table} k where k.caller = g.caller and k.operation = g.operation and k.key = g.key
                and k.payload_hash = g.payload_hash and k.answer is null
              limit 1 for update
            ) k
          ), settled as (
            update ${table} k set answer = own.answer, lease_until = null from own_claims own
            where own.answer is not null and k.caller = own.caller and k.operation = own.operation and k.key = own.key
          ), abandoned as (
            delete from ${table} k using own_claims own
            where own.answer is null and k.caller = own.caller and k.operation = own.operation and k.key = own.key
          )`

        const settle: Idempotency["Service"]["settle"] = (request, answer) =>
          Effect.asVoid(sql`
            update ${table} set answer = ${JSON.stringify(answer)}::jsonb, lease_until = null where ${claimed(request)}`)

        return Idempotency.of({ keyed, find, keeping, keep, claim, claiming, settle, answering })
      })
    )
}

/** Seconds until a running request's lease is over, at least 1: what Retry-After says. */
export const inProgress = (leaseUntil: number, now: number): RequestInProgress =>
  new RequestInProgress({ retryAfterSeconds: Math.max(1, Math.ceil((leaseUntil - now) / 1_000)) })
