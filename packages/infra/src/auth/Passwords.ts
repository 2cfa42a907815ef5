import { Context, Effect, Layer, Semaphore } from "effect"

/** Argon2id with 19 MiB and two passes: the OWASP Password Storage minimum. */
const argon2id = { algorithm: "argon2id", memoryCost: 19_456, timeCost: 2 } as const

/** Hashings at the same time; each takes 19 MiB and a core for some 20 ms. */
const concurrency = 2

/** Hashes of passwords. */
export class Passwords extends Context.Service<
  Passwords,
  {
    readonly hash: (password: string) => Effect.Effect<string>
    readonly verify: (password: string, hash: string) => Effect.Effect<boolean>
  }
>()("merkato/infra/Passwords") {
  static readonly layer = Layer.effect(
    Passwords,
    Effect.gen(function* () {
      const semaphore = yield* Semaphore.make(concurrency)
      return Passwords.of({
        hash: (password) => semaphore.withPermit(Effect.promise(() => Bun.password.hash(password, argon2id))),
        verify: (password, hash) => semaphore.withPermit(Effect.promise(() => Bun.password.verify(password, hash)))
      })
    })
  )
}
