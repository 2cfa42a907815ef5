import { between, type Draw, stream } from "../kernel/Prng.ts"

/** What shoppers and admins do. */
const weights = {
  putInCart: 6,
  readCart: 2,
  place: 24,
  placeTwiceAtOnce: 5,
  placeForWrongTotal: 2,
  rush: 5,
  checkout: 14,
  checkoutTwiceAtOnce: 3,
  checkoutUnderTwoKeys: 3,
  pay: 26,
  payAndCancelAtOnce: 6,
  payTwiceAtOnce: 4,
  cancel: 8,
  repeatKey: 8,
  askAgain: 6,
  reuseKeyForSomethingElse: 2,
  readOrder: 4,
  readNotifications: 2,
  adjustStock: 6,
  changePrice: 4,
  fulfil: 8,
  cancelAsAdmin: 3,
  release: 4,
  reject: 2,
  refund: 6,
  refundTwiceAtOnce: 3,
  refundTwoAtOnce: 3,
  refundAgain: 3,
  startSale: 4,
  cancelSale: 2
} as const

export type Kind = keyof typeof weights

const admins: ReadonlySet<Kind> = new Set<Kind>([
  "adjustStock",
  "changePrice",
  "fulfil",
  "cancelAsAdmin",
  "release",
  "reject",
  "refund",
  "refundTwiceAtOnce",
  "refundTwoAtOnce",
  "refundAgain",
  "startSale",
  "cancelSale"
])

/** One thing that somebody does. Everything that is left to chance about it is drawn here, so that it can be left out alone. */
export interface Command {
  /** Its number in the run, from 1. */
  readonly n: number
  readonly actor: string
  readonly kind: Kind
  /** Virtual milliseconds before it. */
  readonly afterMs: number
  /** What it is about, as doubles in [0, 1). */
  readonly chances: readonly [number, number, number, number, number, number]
}

export const shoppers: ReadonlyArray<string> = Array.from({ length: 7 }, (_, index) => `SHOPPER-${index + 1}`)
export const administrators: ReadonlyArray<string> = ["ADMIN-1", "ADMIN-2"]

const kinds = Object.entries(weights) as ReadonlyArray<readonly [Kind, number]>
const total = kinds.reduce((sum, [, weight]) => sum + weight, 0)

const kindOf = (draw: Draw): Kind => {
  let left = draw() * total
  for (const [kind, weight] of kinds) {
    left -= weight
    if (left < 0) return kind
  }
  return "place"
}

/** The commands of a run, in the order of their numbers. */
export const make = (seed: number, count: number): ReadonlyArray<Command> => {
  const draw = stream(seed, "plan")
  return Array.from({ length: count }, (_, index) => {
    const kind = kindOf(draw)
    const actors = admins.has(kind) ? administrators : shoppers
    return {
      n: index + 1,
      actor: actors[between(draw, 0, actors.length - 1)] ?? "nobody",
      kind,
      afterMs: between(draw, 0, 150),
      chances: [draw(), draw(), draw(), draw(), draw(), draw()]
    }
  })
}
