import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from "node:crypto"
import { join } from "node:path"
import { Config, Context, Effect, Layer, Option, Redacted, Schema } from "effect"
import * as KeyFile from "./KeyFile.ts"
import { Secrets } from "./Secrets.ts"

/** A 256-bit key (RFC 7517, "oct"); its id stands in every ciphertext made with it. */
const Jwk = Schema.Struct({
  kty: Schema.Literal("oct"),
  k: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/)),
  kid: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{1,64}$/))
})

/** The first encrypts, all decrypt: to rotate, put a new key in front, and take the old one out when nothing needs it. */
const JwkSet = Schema.Struct({ keys: Schema.NonEmptyArray(Jwk) })

const variable = "MERKATO_ENCRYPTION_KEYS"
const fileName = "encryption-keys.json"

/** The keys cannot be read; says where they were looked for, never what they are. */
export class EncryptionKeysUnreadable extends Schema.TaggedError<EncryptionKeysUnreadable>()(
  "EncryptionKeysUnreadable",
  { where: Schema.String, reason: Schema.String }
) {
  override get message() {
    return `The encryption keys in ${this.where} cannot be used: ${this.reason}`
  }
}

/** Not made by us, of another record, changed since, or its key is gone. Which one is nobody's business but the log's. */
export class Undecryptable extends Schema.TaggedError<Undecryptable>()("Undecryptable", {
  about: Schema.String,
  reason: Schema.Literals(["malformed", "unknown key", "does not fit"])
}) {
  override get message() {
    return `What was kept encrypted about ${this.about} cannot be read: ${this.reason}`
  }
}

/** Bytes of a nonce and of a tag, as NIST SP 800-38D recommends for GCM. */
const nonceBytes = 12
const tagBytes = 16

/** `e1.<key id>.<nonce, ciphertext and tag in base64url>` */
const format = /^e1\.([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]+)$/

/**
 * Keeps single values secret in the database: AES-256-GCM. `about` names the record that a value belongs to; a
 * ciphertext that is moved to another record does not decrypt there. Nonces come from `Secrets`, so at most 2^32 values
 * should be encrypted with one key (NIST SP 800-38D, section 8.3); rotate long before.
 */
export class Encryption extends Context.Service<
  Encryption,
  {
    readonly encrypt: (plain: string, about: string) => Effect.Effect<string>
    readonly decrypt: (cipher: string, about: string) => Effect.Effect<string, Undecryptable>
  }
>()("merkato/infra/Encryption") {
  /**
   * With the keys in `MERKATO_ENCRYPTION_KEYS` (a JWK set), else in `encryption-keys.json` in the data folder, made on
   * first start (mode 0600). Processes that share a database share them.
   */
  static readonly layer = (dataDir: string) =>
    Layer.effect(
      Encryption,
      Effect.gen(function* () {
        const secrets = yield* Secrets
        const { current, byId } = yield* keys(dataDir)
        const nonce = Effect.map(secrets.token, (token) => Buffer.from(token, "base64url").subarray(0, nonceBytes))

        const encrypt = Effect.fnUntraced(function* (plain: string, about: string) {
          const iv = yield* nonce
          const cipher = createCipheriv("aes-256-gcm", current.key, iv, { authTagLength: tagBytes })
          cipher.setAAD(bound(current.kid, about))
          const sealed = [iv, cipher.update(plain, "utf8"), cipher.final(), cipher.getAuthTag()]
          return `e1.${current.kid}.${Buffer.concat(sealed).toString("base64url")}`
        })

        const decrypt = Effect.fnUntraced(function* (text: string, about: string) {
          const [, kid, body] = format.exec(text) ?? []
          const sealed = Buffer.from(body ?? "", "base64url")
          if (kid === undefined || sealed.length < nonceBytes + tagBytes) {
            return yield* new Undecryptable({ about, reason: "malformed" })
          }
          const key = byId.get(kid)
          if (key === undefined) return yield* new Undecryptable({ about, reason: "unknown key" })
          return yield* Effect.try({
            try: () => opened(key, sealed, bound(kid, about)),
            catch: () => new Undecryptable({ about, reason: "does not fit" })
          })
        })

        return Encryption.of({ encrypt, decrypt })
      })
    )
}

/** What a ciphertext is bound to besides its key. */
const bound = (kid: string, about: string) => Buffer.from(`e1.${kid}.${about}`, "utf8")

const opened = (key: KeyObject, sealed: Buffer, about: Buffer): string => {
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes })
  decipher.setAAD(about)
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes))
  const text = decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes))
  return Buffer.concat([text, decipher.final()]).toString("utf8")
}

const made = () => {
  const [k, kid] = [randomBytes(32).toString("base64url"), randomBytes(6).toString("base64url")]
  return Promise.resolve(`${JSON.stringify({ keys: [{ kty: "oct", k, kid }] })}\n`)
}

const keys = Effect.fnUntraced(function* (dataDir: string) {
  const given = yield* Config.option(Config.Redacted(variable))
  const where = Option.isSome(given) ? variable : join(dataDir, fileName)
  const unreadable = (reason: string) => new EncryptionKeysUnreadable({ where, reason })
  const text = Option.isSome(given)
    ? Redacted.value(given.value)
    : yield* Effect.tryPromise({
        try: () => KeyFile.readOrMake(dataDir, fileName, made),
        catch: (cause) => unreadable(String(cause))
      })
  const set = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(JwkSet))(text).pipe(
    Effect.mapError(() => unreadable("not a JWK set of 256-bit keys with ids"))
  )
  const imported = set.keys.map(({ k, kid }) => ({ kid, key: createSecretKey(Buffer.from(k, "base64url")) }))
  const [current] = imported
  if (current === undefined) return yield* unreadable("no key in it")
  return { current, byId: new Map(imported.map(({ kid, key }) => [kid, key])) }
})
