import { Schema } from "effect"

/** A projection cannot be built anew, or put in its place; the reason is a whole sentence. Nothing was changed. */
export class ReplayFailed extends Schema.TaggedError<ReplayFailed>()("ReplayFailed", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}
