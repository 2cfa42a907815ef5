/** Rows as people read them: a line each, in columns. */
import { Console, Effect } from "effect"
import type { Row, Value } from "@merkato/infra/duckdb/DuckDb"

const text = (value: Value | undefined): string =>
  value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)

export const table = (rows: ReadonlyArray<Row>): string => {
  const [first] = rows
  if (first === undefined) return "No rows."
  const names = Object.keys(first)
  const lines = [names, ...rows.map((row) => names.map((name) => text(row[name])))]
  const widths = names.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  const isNumber = names.map((name) => rows.every((row) => typeof row[name] === "number" || row[name] === null))
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          isNumber[column] === true ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)
        )
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** Prints what a query found: a table, or a line of JSON each. */
export const print = (rows: ReadonlyArray<Row>, json: boolean): Effect.Effect<void> => {
  if (!json) return Console.log(table(rows))
  return rows.length === 0 ? Effect.void : Console.log(rows.map((row) => JSON.stringify(row)).join("\n"))
}
