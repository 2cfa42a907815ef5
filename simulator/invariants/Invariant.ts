import type { ClockSpan } from "../kernel/World.ts"
import type { Memory } from "../model/Memory.ts"
import type { ProviderBook } from "../shop/ProviderBook.ts"
import type { VirtualBus } from "../shop/VirtualBus.ts"
import type { Rows } from "../wire/Server.ts"

/** Everything there is to look at after a run: the real tables, and what the world outside of the shop knows. */
export interface Evidence {
  readonly query: (sql: string) => Promise<Rows>
  readonly books: ReadonlyArray<ProviderBook>
  readonly bus: VirtualBus
  readonly memory: Memory
  /** Of all processes that ever priced anything. */
  readonly pricingClocks: ReadonlyArray<ClockSpan>
}

/** A promise of the shop, and what breaks it. */
export interface Invariant {
  readonly name: string
  /** What breaks it, in words; empty when it holds. */
  readonly broken: (evidence: Evidence) => Promise<ReadonlyArray<string>>
}

const show = (rows: Rows) => rows.slice(0, 3).map((row) => row.join(" | "))

/** Holds when the query finds nothing. */
export const none = (name: string, sql: string): Invariant => ({
  name,
  broken: async ({ query }) => show(await query(sql))
})

/** Objects of a query, as JSON has them. */
export const objects = async <A>({ query }: Evidence, sql: string): Promise<ReadonlyArray<A>> =>
  (await query(`select to_json(q) from (${sql}) q`)).map(([json]) => JSON.parse(json ?? "null") as A)
