import { randomBytes } from "node:crypto"
import { Context, Effect, Layer } from "effect"

/** Secrets that nobody can guess (the fiber's `Random` may be seeded; this is not). */
export class Secrets extends Context.Service<
  Secrets,
  {
    /** 256 random bits, as 43 characters of base64url. */
    readonly token: Effect.Effect<string>
  }
>()("merkato/infra/Secrets") {
  static readonly layer = Layer.succeed(Secrets, {
    token: Effect.sync(() => randomBytes(32).toString("base64url"))
  })
}
