import { Effect, Schema } from "effect"
import { type ContextName, contextNames } from "./contexts.ts"
import type { Peer } from "./deployment.ts"

/** What was said about contexts on the command line makes no sense. */
export class BadTopology extends Schema.TaggedError<BadTopology>()("BadTopology", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

const isContext = (name: string): name is ContextName => contextNames.some((known) => known === name)

/** Reads `orders,cart`. */
export const parseContexts = (text: string) =>
  Effect.forEach(
    text.split(",").map((name) => name.trim()),
    (name) =>
      isContext(name)
        ? Effect.succeed(name)
        : Effect.fail(
            new BadTopology({ reason: `There is no context "${name}"; there are ${contextNames.join(", ")}` })
          )
  )

/** Reads `inventory,payments=http://host:port`. */
export const parsePeer = Effect.fnUntraced(function* (text: string) {
  const split = text.indexOf("=")
  const baseUrl = text.slice(split + 1)
  if (split < 1 || !URL.canParse(baseUrl)) {
    return yield* new BadTopology({
      reason: `Expected contexts=url, as in inventory,payments=http://host:port; got "${text}"`
    })
  }
  return { names: yield* parseContexts(text.slice(0, split)), baseUrl: baseUrl.replace(/\/$/, "") } satisfies Peer
})
