import { join } from "node:path"
import { Config, Context, Effect, Layer, Option, Redacted, Schema } from "effect"
import { calculateJwkThumbprint, type CryptoKey, exportJWK, generateKeyPair, importJWK } from "jose"
import * as KeyFile from "./KeyFile.ts"

const Jwk = Schema.Struct({
  kty: Schema.Literal("OKP"),
  crv: Schema.Literal("Ed25519"),
  x: Schema.String,
  d: Schema.String,
  kid: Schema.String
})

/** A set of Ed25519 keys; the first signs, all verify, so keys can be changed without signing anybody out. */
const JwkSet = Schema.Struct({ keys: Schema.NonEmptyArray(Jwk) })

/** The signing keys cannot be read; says where they were looked for, never what they are. */
export class KeysUnreadable extends Schema.TaggedError<KeysUnreadable>()("KeysUnreadable", {
  where: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The signing keys in ${this.where} cannot be used: ${this.reason}`
  }
}

export interface SigningKey {
  readonly kid: string
  readonly signing: CryptoKey
  readonly verifying: CryptoKey
}

/** The keys that tokens are signed with. */
export class KeyRing extends Context.Service<
  KeyRing,
  { readonly current: SigningKey; readonly byId: ReadonlyMap<string, SigningKey> }
>()("merkato/infra/KeyRing") {
  /** From `MERKATO_SIGNING_KEYS` (a JWK set), else from `keys.json` in the data folder, made on first start (mode 0600). */
  static readonly layer = (dataDir: string) =>
    Layer.effect(
      KeyRing,
      Effect.gen(function* () {
        const given = yield* Config.option(Config.Redacted("MERKATO_SIGNING_KEYS"))
        const where = Option.isSome(given) ? "MERKATO_SIGNING_KEYS" : join(dataDir, "keys.json")
        const text = Option.isSome(given) ? Redacted.value(given.value) : yield* readOrMake(dataDir, where)
        const unreadable = (reason: string) => new KeysUnreadable({ where, reason })
        const { keys } = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(JwkSet))(text).pipe(
          Effect.mapError(() => unreadable("not a JWK set of Ed25519 keys"))
        )
        const imported = yield* Effect.forEach(keys, ({ d, ...key }) =>
          Effect.tryPromise({
            try: async () => ({ kid: key.kid, signing: await secret({ ...key, d }), verifying: await secret(key) }),
            catch: (cause) => unreadable(String(cause))
          })
        )
        const [current] = imported
        if (current === undefined) return yield* unreadable("no key in it")
        return KeyRing.of({ current, byId: new Map(imported.map((key) => [key.kid, key])) })
      })
    )
}

const secret = async (jwk: Parameters<typeof importJWK>[0]): Promise<CryptoKey> => {
  const key = await importJWK(jwk, "EdDSA")
  if (key instanceof Uint8Array) throw new Error("an Ed25519 key was expected")
  return key
}

const readOrMake = (dataDir: string, where: string) =>
  Effect.tryPromise({
    try: () =>
      KeyFile.readOrMake(dataDir, "keys.json", async () => {
        const { privateKey } = await generateKeyPair("EdDSA", { crv: "Ed25519", extractable: true })
        const jwk = await exportJWK(privateKey)
        const kid = (await calculateJwkThumbprint(jwk)).slice(0, 16)
        return `${JSON.stringify({ keys: [{ ...jwk, kid }] })}\n`
      }),
    catch: (cause) => new KeysUnreadable({ where, reason: String(cause) })
  })
