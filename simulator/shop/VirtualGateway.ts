import { Effect, Result } from "effect"
import {
  AttemptNotFound,
  GatewayDown,
  GatewayUnknown,
  type PaymentGateway,
  RefundRefused
} from "@merkato/services/payments/PaymentGateways"
import { between } from "../kernel/Prng.ts"
import type { SimProcess, World } from "../kernel/World.ts"
import type { ProviderBook } from "./ProviderBook.ts"

/** When a connection without an answer breaks; the shop's own policy gives up before that. */
const patienceMs = 3_000

/** How late a request that the network held back may still reach the provider. */
const latestMs = 30_000

/** Longer than a reservation is held while it is paid. */
const leapMs = 11 * 60_000

/** Tokens of the built-in test gateways that make a provider misbehave (contracts: REST). */
type Behaviour = "ok" | "declined" | "timeout" | "lost" | "down"

const behaviourOf = (book: ProviderBook, token: string): Behaviour => {
  switch (token) {
    case "tok_declined":
      return "declined"
    case "tok_timeout":
      return "timeout"
    case "tok_lost":
      return "lost"
    case "tok_all_down":
      return "down"
    case "tok_soap_down":
      return book.name === "soap" ? "down" : "ok"
    default:
      return "ok"
  }
}

/**
 * The shop's side of a provider that keeps its book, and lies about it: says that it is down, does the work and does not
 * answer, answers with garbage, hears a request twice, or long after the shop has given up on it. What it never does is
 * to say "nothing was moved" about something that is moved later.
 */
export const connect = (
  world: World,
  process: SimProcess,
  book: ProviderBook,
  operation: PaymentGateway["operation"]
): PaymentGateway => {
  const { faults } = world

  /** One request: what the provider does with it, and what the shop hears of it. */
  const request = <A, E>(
    label: string,
    act: () => Result.Result<A, E>,
    behaviour: Behaviour = "ok"
  ): Effect.Effect<A, E | GatewayDown | GatewayUnknown> =>
    Effect.callback<A, E | GatewayDown | GatewayUnknown>((resume) => {
      const unknown = (reason: string) => () => resume(Effect.fail(new GatewayUnknown({ reason })))
      const giveUp = unknown("no answer in time")
      const later = (fault: "gatewayActsLate" | "gatewayHearsTwice") =>
        world.timer(
          world.outside,
          between(() => faults.amount(fault), 1, latestMs),
          () => {
            world.log(`  ${book.name} hears late: ${label}`)
            act()
          }
        )
      world.operation(process, `${book.name} ${label}`, () => {
        if (behaviour === "down" || faults.happens("gatewayDown")) {
          world.log("  connection refused")
          return resume(Effect.fail(new GatewayDown({ reason: "connection refused" })))
        }
        if (faults.happens("gatewayRefuses")) {
          world.log("  says that it does nothing now")
          return resume(Effect.fail(new GatewayDown({ reason: "the gateway is down" })))
        }
        if (behaviour === "timeout") {
          world.timer(process, patienceMs, giveUp)
          return
        }
        if (faults.happens("gatewayActsLate")) {
          world.log("  the request is held back")
          later("gatewayActsLate")
          world.timer(process, patienceMs, giveUp)
          return
        }
        if (faults.happens("gatewayHearsTwice")) later("gatewayHearsTwice")
        const answer = act()
        if (label.startsWith("authorise") && faults.happens("leapAfterCharge")) world.leap(leapMs)
        if (behaviour === "lost" || faults.happens("gatewayForgetsToAnswer")) {
          world.log("  done, and no answer")
          world.timer(process, patienceMs, giveUp)
          return
        }
        if (faults.happens("gatewayTalksNonsense")) {
          world.log("  done, and the answer makes no sense")
          return unknown("an answer that makes no sense")()
        }
        const late = faults.happens("gatewayAnswersLate")
          ? between(() => faults.amount("gatewayAnswersLate"), 1, 2 * patienceMs)
          : 0
        if (late > patienceMs) world.timer(process, patienceMs, giveUp)
        else if (late > 0) world.timer(process, late, () => resume(Effect.fromResult(answer)))
        else world.operation(process, `answer of ${book.name} to ${label}`, () => resume(Effect.fromResult(answer)))
      })
    })

  const known = <A>(found: A | undefined) =>
    found === undefined
      ? Result.fail(new GatewayUnknown({ reason: "the gateway does not know the attempt" }))
      : Result.succeed(found)

  return {
    name: book.name,
    operation,
    authorise: ({ attemptId, orderId, amountMinor, token }) => {
      const behaviour = behaviourOf(book, token)
      return request(
        `authorise ${attemptId}`,
        () => Result.succeed(book.authorise({ attemptId, orderId, amountMinor, declined: behaviour === "declined" })),
        behaviour
      )
    },
    find: (attemptId) =>
      request(`find ${attemptId}`, () => {
        const found = book.find(attemptId)
        return found === undefined ? Result.fail(new AttemptNotFound()) : Result.succeed(found)
      }),
    capture: (attemptId) => request(`capture ${attemptId}`, () => known(book.capture(attemptId))),
    void: (attemptId) => request(`void ${attemptId}`, () => Result.succeed(book.void(attemptId))),
    refund: ({ attemptId, refundId, amountMinor }) =>
      Effect.suspend(() => {
        const silent = !faults.healed && book.isSilentAbout(refundId, () => faults.happens("gatewaySilentAboutRefund"))
        return request(
          `refund ${refundId} of ${attemptId}`,
          () => {
            const refusal = book.refund(attemptId, refundId, amountMinor, () => faults.happens("gatewayRefusesRefund"))
            return refusal === undefined ? Result.void : Result.fail(new RefundRefused({ reason: refusal }))
          },
          silent ? (faults.amount("gatewaySilentAboutRefund") < 0.5 ? "lost" : "timeout") : "ok"
        )
      })
  }
}
