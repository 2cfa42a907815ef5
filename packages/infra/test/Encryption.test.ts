import { afterAll, describe, expect, test } from "bun:test"
import { ConfigProvider, Effect, Layer } from "effect"
import * as fc from "fast-check"
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Encryption, EncryptionKeysUnreadable, Undecryptable } from "../src/auth/Encryption.ts"
import { Secrets } from "../src/auth/Secrets.ts"

const folders: Array<string> = []
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })))
const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), "merkato-encryption-"))
  folders.push(folder)
  return folder
}

const inShop = <A, E>(
  folder: string,
  effect: Effect.Effect<A, E, Encryption>,
  env: Readonly<Record<string, string>> = {},
  secrets: Layer.Layer<Secrets> = Secrets.layer
) =>
  effect.pipe(
    Effect.provide(Encryption.layer(folder).pipe(Layer.provide(secrets))),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(env)),
    Effect.runPromise
  )

const encrypt = (plain: string, about: string) => Encryption.use((it) => it.encrypt(plain, about))
const decrypt = (cipher: string, about: string) => Encryption.use((it) => it.decrypt(cipher, about))

const jwk = (kid: string, byte: number) => ({ kty: "oct", k: Buffer.alloc(32, byte).toString("base64url"), kid })
const keySet = (...keys: ReadonlyArray<unknown>) => ({ MERKATO_ENCRYPTION_KEYS: JSON.stringify({ keys }) })

/** Any text that has a UTF-8 form. */
const text = fc.string({ unit: "grapheme", maxLength: 200 })

describe("what is encrypted", () => {
  test("decrypts to itself, for the record it is about", () =>
    inShop(
      newFolder(),
      Effect.gen(function* () {
        for (const [plain, about] of fc.sample(fc.tuple(text, text), 200)) {
          expect(yield* decrypt(yield* encrypt(plain, about), about)).toBe(plain)
        }
      })
    ))

  test("does not show what it was, is never twice the same, and fits a text column without escapes", () =>
    inShop(
      newFolder(),
      Effect.gen(function* () {
        const ciphers = yield* Effect.replicateEffect(encrypt("tok_visible", "saga/1"), 200)
        expect(new Set(ciphers).size).toBe(200)
        for (const cipher of ciphers) {
          expect(cipher).toMatch(/^e1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/)
          expect(Buffer.from(cipher.split(".")[2] ?? "", "base64url").toString("latin1")).not.toContain("visible")
        }
      })
    ))

  test("does not decrypt for another record, nor with any one bit changed", () =>
    inShop(
      newFolder(),
      Effect.gen(function* () {
        const cipher = yield* encrypt("tok_ok", "saga/1")
        expect(yield* Effect.flip(decrypt(cipher, "saga/2"))).toEqual(
          new Undecryptable({ about: "saga/2", reason: "does not fit" })
        )
        const [version, kid, body] = cipher.split(".")
        const sealed = Buffer.from(body ?? "", "base64url")
        for (let bit = 0; bit < sealed.length * 8; bit++) {
          const changed = Buffer.from(sealed)
          changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
          const error = yield* Effect.flip(decrypt(`${version}.${kid}.${changed.toString("base64url")}`, "saga/1"))
          expect(error.reason).toBe("does not fit")
        }
      })
    ))

  test("that is no ciphertext at all, or cut short, is refused", () =>
    inShop(
      newFolder(),
      Effect.gen(function* () {
        const cipher = yield* encrypt("tok_ok", "saga/1")
        for (const bad of [
          "",
          "tok_ok",
          "e1..",
          "e1.key",
          "e2.key.AAAA",
          "e1.key.AAAA",
          cipher.slice(0, 30),
          `${cipher}=`
        ]) {
          expect(yield* Effect.flip(decrypt(bad, "saga/1"))).toEqual(
            new Undecryptable({ about: "saga/1", reason: "malformed" })
          )
        }
      })
    ))
})

describe("keys", () => {
  test("are made once, for their owner's eyes only, and are there after a restart", async () => {
    const folder = newFolder()
    const cipher = await inShop(folder, encrypt("tok_ok", "saga/1"))
    expect(statSync(join(folder, "encryption-keys.json")).mode & 0o777).toBe(0o600)
    const before = readFileSync(join(folder, "encryption-keys.json"), "utf8")
    expect(await inShop(folder, decrypt(cipher, "saga/1"))).toBe("tok_ok")
    expect(readFileSync(join(folder, "encryption-keys.json"), "utf8")).toBe(before)
    expect((await inShop(newFolder(), Effect.flip(decrypt(cipher, "saga/1")))).reason).toBe("unknown key")
  })

  test("of processes that start together are the same", async () => {
    const folder = newFolder()
    const ciphers = await Promise.all(Array.from({ length: 8 }, () => inShop(folder, encrypt("tok_ok", "saga/1"))))
    for (const cipher of ciphers) expect(await inShop(folder, decrypt(cipher, "saga/1"))).toBe("tok_ok")
  })

  test("rotate: the first one encrypts, the others still decrypt, until they are taken out", async () => {
    const folder = newFolder()
    const old = await inShop(folder, encrypt("tok_ok", "saga/1"), keySet(jwk("k1", 1)))
    const both = keySet(jwk("k2", 2), jwk("k1", 1))
    expect(await inShop(folder, decrypt(old, "saga/1"), both)).toBe("tok_ok")
    expect(await inShop(folder, encrypt("tok_ok", "saga/1"), both)).toStartWith("e1.k2.")
    const gone = await inShop(folder, Effect.flip(decrypt(old, "saga/1")), keySet(jwk("k2", 2)))
    expect(gone).toEqual(new Undecryptable({ about: "saga/1", reason: "unknown key" }))
    // The id alone does not help: it has to be the key.
    const forged = await inShop(folder, Effect.flip(decrypt(old, "saga/1")), keySet(jwk("k1", 3)))
    expect(forged.reason).toBe("does not fit")
  })

  test("that are none are refused, in a sentence without the keys", async () => {
    for (const bad of ["{}", "secret", JSON.stringify({ keys: [{ ...jwk("k1", 1), k: "c2hvcnQ" }] })]) {
      const error = await inShop(newFolder(), Effect.flip(encrypt("x", "y")), { MERKATO_ENCRYPTION_KEYS: bad }).catch(
        (cause: unknown) => cause
      )
      expect(String(error)).toContain("MERKATO_ENCRYPTION_KEYS")
      if (bad !== "{}") expect(String(error)).not.toContain(bad)
    }
    const error = await Effect.runPromise(
      Effect.flip(Layer.build(Encryption.layer(newFolder()).pipe(Layer.provide(Secrets.layer)))).pipe(
        Effect.scoped,
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromUnknown({ MERKATO_ENCRYPTION_KEYS: "{}" })
        )
      )
    )
    expect(error).toBeInstanceOf(EncryptionKeysUnreadable)
  })

  test("and nonces are all that a ciphertext depends on: with Secrets given, it is always the same", async () => {
    const folder = newFolder()
    const still = Layer.succeed(Secrets, { token: Effect.succeed(Buffer.alloc(32, 7).toString("base64url")) })
    const once = () => inShop(folder, encrypt("tok_ok", "saga/1"), keySet(jwk("k1", 1)), still)
    expect(await once()).toBe(await once())
  })
})
