import type { ContextName } from "@merkato/services/contexts"
import { between, type Draw, oneOf } from "../kernel/Prng.ts"

/**
 * Contexts that take part. Identity is left out: its password hashing is slow by design, and nothing here signs in. So are
 * analytics, which nobody buys by, and partners, which only looks on and calls others over a network of its own.
 */
export type Simulated = Exclude<ContextName, "identity" | "analytics" | "partners">

export const simulated: ReadonlyArray<Simulated> = [
  "catalogue",
  "pricing",
  "cart",
  "inventory",
  "orders",
  "payments",
  "notifications",
  "risk"
]

const front: ReadonlyArray<Simulated> = ["catalogue", "pricing", "cart", "orders", "notifications", "risk"]

/** Which processes there are, and which contexts each runs. Two that run the same share its database, as in a cluster. */
export type Topology = ReadonlyArray<ReadonlyArray<Simulated>>

/** Everything in one process. */
export const alone: Topology = [simulated]

const times = <A>(count: number, value: A): ReadonlyArray<A> => Array.from({ length: count }, () => value)

/** The seed's choice among the ways to deploy the shop. */
export const choose = (draw: Draw): Topology =>
  oneOf<() => Topology>(draw, [
    () => alone,
    () => times(2, simulated),
    () => [
      ...times(2, front),
      ...times(between(draw, 1, 2), ["inventory"] as const),
      ...times(between(draw, 1, 2), ["payments"] as const)
    ],
    () => [front, ["inventory", "payments"], ["inventory", "payments"]],
    () => simulated.map((name) => [name])
  ])()
