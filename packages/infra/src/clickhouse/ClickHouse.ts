import { Context, type Effect, Schema } from "effect"

/** ClickHouse does not answer, or cannot do now what it is asked; what was written may be there. */
export class ClickHouseUnavailable extends Schema.TaggedError<ClickHouseUnavailable>()("ClickHouseUnavailable", {
  cause: Schema.Defect()
}) {}

/** There is no such table: not yet, or not any more. */
export class NoSuchTable extends Schema.TaggedError<NoSuchTable>()("NoSuchTable", { cause: Schema.Defect() }) {}

export type ClickHouseError = ClickHouseUnavailable | NoSuchTable

/** What a placeholder stands for: `{name:Type}` in the SQL. */
export type Parameter = string | number | ReadonlyArray<Parameter> | Tuple

/** Values of several types together, as ClickHouse has it. */
export interface Tuple {
  readonly tuple: ReadonlyArray<Parameter>
}

/** A row by column: 64-bit integers are numbers, moments are text as in RFC 3339, of UTC. */
export type Row = Readonly<Record<string, unknown>>

/** The ClickHouse of the shop. What it refuses is a mistake of ours, and dies. */
export class ClickHouse extends Context.Service<
  ClickHouse,
  {
    readonly select: (
      sql: string,
      parameters?: Readonly<Record<string, Parameter>>
    ) => Effect.Effect<ReadonlyArray<Row>, ClickHouseError>
    /** Written, on the disk, once it has succeeded. */
    readonly insert: (table: string, rows: ReadonlyArray<Row>) => Effect.Effect<void, ClickHouseError>
    /** What changes tables, and tells nothing. */
    readonly command: (sql: string) => Effect.Effect<void, ClickHouseError>
  }
>()("merkato/infra/ClickHouse") {}
