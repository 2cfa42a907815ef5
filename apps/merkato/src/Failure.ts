import { Schema } from "effect"

/** A command cannot do what it was asked; the reason is a whole sentence for the person who asked. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** No answer came from the shop. */
export class ShopUnreachable extends Schema.TaggedError<ShopUnreachable>()("ShopUnreachable", {
  url: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `No shop answers at ${this.url} (${this.reason}): start one with scripts/start, or say where it is with --url.`
  }
}

/** What an error says, and what each of its causes does. */
export const reasonsOf = (error: Error): ReadonlyArray<string> =>
  error.cause instanceof Error ? [error.message, ...reasonsOf(error.cause)] : [error.message]
