import { type Draw, stream } from "./Prng.ts"

/** What may go wrong, and how likely it is each time that it could. */
const chances = {
  /** Per step of the world. */
  kill: 0.0012,
  pause: 0.0006,
  longPause: 0.0003,
  clockJump: 0.0012,
  leap: 0.0006,
  /** Per statement. */
  dropBeforeStatement: 0.0008,
  dropAfterStatement: 0.0008,
  cancelStatement: 0.001,
  statementDelayed: 0.002,
  dropBeforeCommit: 0.01,
  dropAfterCommit: 0.015,
  commitDelayed: 0.03,
  /** Per statement of the order process: whoever moves it on, or has just taken it over, does not run for longer than it may. */
  ownerSleeps: 0.01,
  /** Per message between processes. */
  requestLost: 0.012,
  requestDelayed: 0.05,
  requestDuplicated: 0.03,
  replyLost: 0.015,
  replyDelayed: 0.05,
  callerHangsUp: 0.01,
  /** Per call of a payment gateway. */
  gatewayRefuses: 0.04,
  gatewayDown: 0.03,
  gatewayForgetsToAnswer: 0.06,
  gatewayAnswersLate: 0.06,
  gatewayActsLate: 0.06,
  gatewayHearsTwice: 0.06,
  gatewayTalksNonsense: 0.04,
  /** Per refund. */
  gatewayRefusesRefund: 0.1,
  gatewaySilentAboutRefund: 0.2,
  /** The machine sleeps between the charge and the goods, for longer than those are held. */
  leapAfterCharge: 0.06,
  /** Per trip to the bus, or per event. */
  publishRefused: 0.02,
  publishAnswerLost: 0.03,
  eventDuplicated: 0.06,
  eventDelayed: 0.1,
  consumerSlow: 0.06,
  commitLost: 0.08,
  rebalance: 0.04,
  /** Per turn of the operator who locks rows by hand, in no order. */
  rudeOperator: 0.5
} as const

export type Fault = keyof typeof chances

export const faultNames = Object.keys(chances).filter((name): name is Fault => name in chances)

/**
 * Decides about each fault with a stream of its own, so that switching one kind off leaves the draws of the others as
 * they are. After `heal` nothing goes wrong any more.
 */
export class Faults {
  readonly counts = new Map<Fault, number>()
  healed = false
  private readonly draws: ReadonlyMap<Fault, Draw>
  private readonly off: ReadonlySet<Fault>

  constructor(seed: number, off: ReadonlySet<Fault>) {
    this.draws = new Map(faultNames.map((fault) => [fault, stream(seed, `fault ${fault}`)]))
    this.off = off
  }

  /** Whether it happens now. */
  happens(fault: Fault): boolean {
    if (this.healed || this.off.has(fault)) return false
    const draw = this.draws.get(fault)
    if (draw === undefined || draw() >= chances[fault]) return false
    this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1)
    return true
  }

  /** How much of it: a double in [0, 1) of the fault's own stream. */
  amount(fault: Fault): number {
    return this.draws.get(fault)?.() ?? 0
  }

  count(fault: Fault): number {
    return this.counts.get(fault) ?? 0
  }
}
