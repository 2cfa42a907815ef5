import { Context, type Effect, Schema } from "effect"

/** Cassandra does not answer, or not in time; what was written may be there. */
export class CassandraUnavailable extends Schema.TaggedError<CassandraUnavailable>()("CassandraUnavailable", {
  cause: Schema.Defect()
}) {}

/** A bigint is CQL's bigint, a number its int. */
export type Value = string | number | bigint | Date | null

export interface Statement {
  readonly cql: string
  readonly values: ReadonlyArray<Value>
}

/** A row as the driver tells it, by column. */
export type Row = Readonly<Record<string, unknown>>

export interface Rows {
  readonly rows: ReadonlyArray<Row>
  /** Where the rest begins, if there is more. */
  readonly next: string | undefined
}

/** The Cassandra of the shop. What it refuses is a mistake of ours, and dies. */
export class Cassandra extends Context.Service<
  Cassandra,
  {
    readonly keyspace: string
    readonly run: (statement: Statement) => Effect.Effect<ReadonlyArray<Row>, CassandraUnavailable>
    /** The same for many, some of them at a time, in no order; what each of them tells, in order. */
    readonly runAll: (
      statements: ReadonlyArray<Statement>
    ) => Effect.Effect<ReadonlyArray<ReadonlyArray<Row>>, CassandraUnavailable>
    /** A part of many rows, from where the last one ended. */
    readonly page: (
      statement: Statement,
      size: number,
      from: string | undefined
    ) => Effect.Effect<Rows, CassandraUnavailable>
  }
>()("merkato/infra/Cassandra") {}
