import { Context, Effect, type Scope } from "effect"

/** An answer that is there already; undefined leaves the request to its handler. Owes what a handler's answer owes. */
export type Offer = (request: Request) => Response | undefined

/**
 * Where handlers offer the server answers that are at hand, such as what a cache holds. A GET or HEAD is answered with one
 * before anything is begun for it: a fiber with its services costs several times as much. Without such a server nothing is
 * taken up, and handlers answer everything.
 */
export interface AtHand {
  /** Until the scope closes. */
  readonly offer: (offer: Offer) => Effect.Effect<void, never, Scope.Scope>
}
export const AtHand = Context.Reference<AtHand>("merkato/http/AtHand", {
  defaultValue: () => ({ offer: () => Effect.void })
})

/** The offers to one server. */
export class Offers implements AtHand {
  private readonly offers = new Set<Offer>()

  readonly offer = (offer: Offer) =>
    Effect.acquireRelease(
      Effect.sync(() => void this.offers.add(offer)),
      () => Effect.sync(() => this.offers.delete(offer))
    )

  answer(request: Request): Response | undefined {
    for (const offer of this.offers) {
      const answer = offer(request)
      if (answer !== undefined) return answer
    }
    return undefined
  }
}
