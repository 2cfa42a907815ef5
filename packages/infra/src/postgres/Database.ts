import { PgClient, PgTypes } from "@effect/sql-pg"
import { Cause, Effect, Option, Redacted, Result, Schedule } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import type { Duplex } from "node:stream"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import * as AnsweringStream from "./AnsweringStream.ts"

/** int8 as a number: every bigint of ours (positions, minor units, counts) is a safe integer; one that is not fails. */
const types = PgTypes.makeRegistry()
types.register(
  PgTypes.OID.int8,
  {
    encode: (value: bigint | number) => {
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setBigInt64(0, BigInt(value))
      return Result.succeed(bytes)
    },
    decode: (bytes) => {
      const value = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigInt64(0))
      return Number.isSafeInteger(value)
        ? Result.succeed(value)
        : Result.fail(new PgTypes.CodecError({ message: "int8 outside the safe integers" }))
    }
  },
  { arrayOid: PgTypes.OID.int8Array }
)

export interface DatabaseOptions {
  readonly url: Redacted.Redacted
  /** Connections of the pool. */
  readonly maxConnections: number
  /** Shown in pg_stat_activity. */
  readonly applicationName: string
  /** Longest run of one statement, in milliseconds; 10,000 unless told. */
  readonly statementTimeoutMs?: number
  /**
   * After so many milliseconds without an answer a connection over TCP is lost: 5,000 more than a statement may run, in which
   * Postgres would have answered at least that it took too long. Never where statements may run for ever.
   */
  readonly answerWithinMs?: number
  /** Opens a connection's stream of bytes; TCP to the URL's host unless told. */
  readonly stream?: () => Duplex
}

/**
 * When its connection is lost, Effect's transaction cannot roll back, and makes defects of that and of the failure it
 * was for. A lost connection is no defect: it is the failure of the transaction again, which callers know how to treat.
 */
const lostIsFailure = <A, E, R>(transaction: Effect.Effect<A, E | SqlError.SqlError, R>) =>
  Effect.catchCause(transaction, (cause): Effect.Effect<never, E | SqlError.SqlError> => {
    if (Cause.hasInterrupts(cause)) return Effect.failCause(cause)
    for (const reason of cause.reasons) {
      if (Cause.isDieReason(reason) && SqlError.isSqlError(reason.defect) && isUnreachable(reason.defect)) {
        return Effect.fail(reason.defect)
      }
    }
    return Effect.failCause(cause)
  })

const withLostAsFailure = (client: PgClient.PgClient): PgClient.PgClient => {
  const { withTransaction } = client
  return Object.assign(client, {
    withTransaction: <R, E, A>(effect: Effect.Effect<A, E, R>) => lostIsFailure<A, E, R>(withTransaction(effect))
  })
}

/** Milliseconds that an answer may be on its way. */
const onTheWayMs = 5_000

const streamOf = ({ answerWithinMs, statementTimeoutMs = 10_000, stream, url }: DatabaseOptions) => {
  const withinMs = answerWithinMs ?? (statementTimeoutMs === 0 ? undefined : statementTimeoutMs + onTheWayMs)
  const to = AnsweringStream.tcpOf(Redacted.value(url))
  if (stream !== undefined || withinMs === undefined || to === undefined) return stream
  return () => AnsweringStream.open(to, withinMs)
}

/** A pool of connections to one Postgres. */
export const layer = (options: DatabaseOptions) => {
  const stream = streamOf(options)
  return PgClient.layerFrom(
    Effect.map(
      PgClient.make({
        url: options.url,
        types,
        maxConnections: options.maxConnections,
        minConnections: Math.min(2, options.maxConnections),
        applicationName: options.applicationName,
        ...(stream === undefined ? {} : { stream }),
        startupParameters: {
          statement_timeout: String(options.statementTimeoutMs ?? 10_000),
          idle_in_transaction_session_timeout: "60000",
          timezone: "UTC",
          jit: "off"
        }
      }),
      withLostAsFailure
    )
  )
}

/** The transaction lost against another and was rolled back whole: it may simply run again. */
const lostRace = (error: unknown): boolean =>
  SqlError.isSqlError(error) && (error.reason._tag === "DeadlockError" || error.reason._tag === "SerializationError")

const again = Schedule.jittered(Schedule.exponential("5 millis"))

/** Runs a statement or transaction again, at most 5 times, when it lost against another one. */
export const retryLostRace = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(effect, { schedule: again, times: 5, while: lostRace })

/**
 * For the select list of a statement: the commit of its transaction does not wait until it is on the disk, so a crash of the
 * server may undo it (the last 0.6 seconds at most: three times wal_writer_delay). Only where nobody was told of it, and doing
 * it once more is harmless.
 */
export const unhurried = "set_config('synchronous_commit', 'off', true) as unhurried"

/**
 * Which running server this is, the same for all databases in it; undefined where it does not tell. What is committed in one is
 * on its disk in the order of the commits, hurried or not.
 */
export const cluster: Effect.Effect<string | undefined, never, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ id: string }>`
    select system_identifier || ' since ' || extract(epoch from pg_postmaster_start_time()) as id from pg_control_system()`
).pipe(
  Effect.map(([row]) => row?.id),
  Effect.orElseSucceed(() => undefined)
)

/**
 * One transaction, run again when it lost against another. Within a transaction it is a part of that one, which runs again
 * as a whole: the part alone would keep what the other one waits for, and lose again.
 */
export const transaction = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError.SqlError, R | SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const around = yield* Effect.serviceOption(sql.transactionService)
    const once = sql.withTransaction(effect)
    return yield* Option.isSome(around) ? once : retryLostRace(once)
  })

/**
 * The server is stopping, has crashed, is starting, has no room on its disk, no memory or no connection left, cannot use its
 * disk, only reads (a standby), or has hung up on a transaction that did nothing for a minute: SQLSTATEs for which the
 * driver has no reason of its own.
 */
const unwell = /^(57P0[123]|53[123]00|58030|25006|25P03)$/

/** Whether somebody else's row has a value that may be there once. */
export const isUniqueViolation = (error: unknown): error is SqlError.SqlError =>
  SqlError.isSqlError(error) && error.reason._tag === "UniqueViolation"

/** Whether somebody kept a lock for longer than was waited for it. */
export const isLocked = (error: unknown): error is SqlError.SqlError =>
  SqlError.isSqlError(error) && error.reason._tag === "LockTimeoutError"

/** Nobody takes the connection, it was lost, or the server is in no state to work. */
export const isUnreachable = ({ reason }: SqlError.SqlError): boolean => {
  const { cause } = reason
  return (
    reason._tag === "ConnectionError" ||
    (cause instanceof Error && "code" in cause && typeof cause.code === "string" && unwell.test(cause.code))
  )
}

/** What the shop cannot help: the database is away, busy or slow. Everything else is a defect of ours. */
const isAway = (error: SqlError.SqlError): boolean => {
  switch (error.reason._tag) {
    case "DeadlockError":
    case "SerializationError":
    case "LockTimeoutError":
    case "StatementTimeoutError":
      return true
    default:
      return isUnreachable(error)
  }
}

/** The statement was refused for what is in it: another one, or a part of it, may well pass. */
export const isRefused = (error: SqlError.SqlError): boolean => !isAway(error)

/**
 * Turns failures of the database into the one typed error that callers see. After it the outcome of a write is unknown:
 * it is repeated under the same idempotency key, or not at all.
 */
export const orUnavailable =
  (service: string) =>
  <A, E, R>(
    effect: Effect.Effect<A, E | SqlError.SqlError, R>
  ): Effect.Effect<A, Exclude<E, SqlError.SqlError> | ServiceUnavailable, R> =>
    Effect.catchIf(
      effect,
      (error): error is Extract<E | SqlError.SqlError, SqlError.SqlError> => SqlError.isSqlError(error),
      (error) =>
        isAway(error)
          ? Effect.andThen(
              Effect.logWarning("Database unavailable", error.message),
              Effect.fail(new ServiceUnavailable({ service, retryAfterSeconds: 1 }))
            )
          : Effect.die(error)
    ) as Effect.Effect<A, Exclude<E, SqlError.SqlError> | ServiceUnavailable, R>
