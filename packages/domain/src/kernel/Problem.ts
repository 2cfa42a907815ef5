import { Schema } from "effect"

/**
 * How a typed error reads at every border: `OutOfStock` is `out_of_stock`. Stable, since other people's programs
 * compare it (contracts: errors).
 */
export const codeOf = (tag: string): string =>
  tag.replace(/(?<=[a-z0-9])[A-Z]/g, (letter) => `_${letter}`).toLowerCase()

/** A title for people, from the tag: `OutOfStock` is `Out of stock`. */
export const titleOf = (tag: string): string => {
  const words = codeOf(tag).replaceAll("_", " ")
  return words.charAt(0).toUpperCase() + words.slice(1)
}

/** The Authorizer said no. */
export class Forbidden extends Schema.TaggedError<Forbidden>()(
  "Forbidden",
  { action: Schema.String },
  { httpApiStatus: 403 }
) {
  override get message() {
    return `You are not allowed to do this: ${this.action}`
  }
}

/** The request needs somebody who is signed in. */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()(
  "Unauthenticated",
  { reason: Schema.String },
  { httpApiStatus: 401 }
) {
  override get message() {
    return this.reason
  }
}

/** Another context, or a store it needs, does not answer. Nothing is known to have happened; safe to repeat with the same key. */
export class ServiceUnavailable extends Schema.TaggedError<ServiceUnavailable>()(
  "ServiceUnavailable",
  { service: Schema.String, retryAfterSeconds: Schema.Int },
  { httpApiStatus: 503 }
) {
  override get message() {
    return `${this.service} is not available right now`
  }
}

/** The key came before, with another payload. */
export class IdempotencyKeyReused extends Schema.TaggedError<IdempotencyKeyReused>()(
  "IdempotencyKeyReused",
  { key: Schema.String },
  { httpApiStatus: 422 }
) {
  override get message() {
    return "This Idempotency-Key was used before with a different request"
  }
}

/** The first request with this key is still running. */
export class RequestInProgress extends Schema.TaggedError<RequestInProgress>()(
  "RequestInProgress",
  { retryAfterSeconds: Schema.Int },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "The first request with this Idempotency-Key is still running"
  }
}

/** A value that has the right shape and still makes no sense. */
export class InvalidValue extends Schema.TaggedError<InvalidValue>()(
  "InvalidValue",
  { path: Schema.String, reason: Schema.String },
  { httpApiStatus: 400 }
) {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** The HTTP status an error class is annotated with; 500 for what has none. */
export const statusOf = (error: object): number => {
  const { constructor } = error
  return Schema.isSchema(constructor) && typeof constructor.ast.annotations?.["httpApiStatus"] === "number"
    ? constructor.ast.annotations["httpApiStatus"]
    : 500
}
