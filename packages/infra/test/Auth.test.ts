import { afterAll, describe, expect, test } from "bun:test"
import { Clock, ConfigProvider, Effect, Exit, Layer } from "effect"
import { base64url, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Id, UserId } from "@merkato/domain/kernel/Ids"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { showing } from "../../../tests/support/Clocks.ts"
import { KeyRing, KeysUnreadable } from "../src/auth/KeyRing.ts"
import { Passwords } from "../src/auth/Passwords.ts"
import { Secrets } from "../src/auth/Secrets.ts"
import { Tokens } from "../src/auth/Tokens.ts"

const folders: Array<string> = []
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })))
const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), "merkato-auth-"))
  folders.push(folder)
  return folder
}

/** Tokens and keys of a shop whose data is in a folder; no environment but this one. */
const inShop = <A, E>(
  folder: string,
  effect: Effect.Effect<A, E, Tokens | KeyRing>,
  env: Readonly<Record<string, string>> = {}
) =>
  effect.pipe(
    Effect.provide(Tokens.layer.pipe(Layer.provideMerge(KeyRing.layer(folder)))),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(env)),
    Effect.runPromise
  )

const shop = newFolder()
const start = Date.UTC(2025, 5, 1, 12)

/** At so many seconds after the start. */
const at =
  (seconds: number) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Clock.Clock, (live) =>
      Effect.provideService(
        effect,
        Clock.Clock,
        showing(live, () => start + seconds * 1_000)
      )
    )

const ada = new Principal({
  userId: UserId.make("ADA"),
  role: "shopper",
  region: "in",
  sessionId: Id.make("SESSION-1")
})
const guest = new Principal({ userId: UserId.make("GUEST-1"), role: "guest", region: "br" })

const invalid = new Unauthenticated({ reason: "The token is not valid" })
const expired = new Unauthenticated({ reason: "The token has expired" })

describe("a token", () => {
  test("says who somebody is, until it expires", () =>
    inShop(
      shop,
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const token = yield* at(0)(tokens.issue(ada, 900))
        for (const seconds of [0, 1, 899]) expect(yield* at(seconds)(tokens.verify(token))).toEqual(ada)
        // A token that was verified before is remembered; not for longer than it lives.
        for (const seconds of [900, 901, 100_000]) {
          expect(yield* Effect.flip(at(seconds)(tokens.verify(token)))).toEqual(expired)
        }
        const other = yield* at(0)(tokens.issue(guest, 60))
        expect(yield* at(59)(tokens.verify(other))).toEqual(guest)
      })
    ))

  test("that has expired is refused at first sight as well", () =>
    inShop(
      shop,
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const token = yield* at(0)(tokens.issue(ada, 60))
        expect(yield* Effect.flip(at(61)(tokens.verify(token)))).toEqual(expired)
      })
    ))

  test("is for the one audience that it was made for: people, or services", () =>
    inShop(
      shop,
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const peoples = yield* tokens.issue(ada, 60)
        const services = yield* tokens.issueForServices
        yield* tokens.verifyService(services)
        expect(yield* Effect.flip(tokens.verifyService(peoples))).toEqual(invalid)
        expect(yield* Effect.flip(tokens.verify(services))).toEqual(invalid)
        // Also once they have been remembered on their own side.
        yield* tokens.verify(peoples)
        yield* tokens.verifyService(services)
        expect(yield* Effect.flip(tokens.verifyService(peoples))).toEqual(invalid)
        expect(yield* Effect.flip(tokens.verify(services))).toEqual(invalid)
      })
    ))

  test("of a service lives a minute, and is renewed in time", () =>
    inShop(
      shop,
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const first = yield* at(0)(tokens.issueForServices)
        expect(yield* at(29)(tokens.issueForServices)).toBe(first)
        const second = yield* at(31)(tokens.issueForServices)
        expect(second).not.toBe(first)
        yield* at(59)(tokens.verifyService(first))
        expect(yield* Effect.flip(at(60)(tokens.verifyService(first)))).toEqual(expired)
        yield* at(60)(tokens.verifyService(second))
        expect(yield* Effect.flip(at(200)(tokens.verifyService(second)))).toEqual(expired)
      })
    ))

  const parts = (token: string) => {
    const [header = "", payload = "", signature = ""] = token.split(".")
    const read = (part: string): Record<string, unknown> => JSON.parse(Buffer.from(part, "base64url").toString("utf8"))
    return { header: read(header), payload: read(payload), signature, signed: `${header}.${payload}` }
  }
  const encode = (value: unknown) => base64url.encode(JSON.stringify(value))

  /** A signed token with such claims, by whatever key. */
  const signed = (
    key: CryptoKey | Uint8Array,
    header: { readonly alg: string; readonly kid?: string },
    claims: JWTPayload,
    { issuer = "merkato", audience = "merkato" } = {}
  ) => {
    const now = Math.floor(Date.now() / 1_000)
    return Effect.promise(() =>
      new SignJWT(claims)
        .setProtectedHeader(header)
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt(now)
        .setExpirationTime(now + 60)
        .sign(key)
    )
  }
  const claims = { sub: "ADA", role: "admin", region: "us" }

  const forgeries: Readonly<Record<string, Effect.Effect<string, unknown, Tokens | KeyRing>>> = {
    "another payload under the same signature": Effect.gen(function* () {
      const { header, payload, signature } = parts(yield* (yield* Tokens).issue(ada, 60))
      return `${encode(header)}.${encode({ ...payload, role: "admin" })}.${signature}`
    }),
    "a changed signature": Effect.gen(function* () {
      const { signed, signature } = parts(yield* (yield* Tokens).issue(ada, 60))
      return `${signed}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`
    }),
    "no signature": Effect.map(
      Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60)),
      (token) => `${parts(token).signed}.`
    ),
    "the algorithm none": Effect.gen(function* () {
      const { payload } = parts(yield* (yield* Tokens).issue(ada, 60))
      return `${encode({ alg: "none", typ: "JWT" })}.${encode({ ...payload, role: "admin" })}.`
    }),
    "the algorithm none and our key's name": Effect.gen(function* () {
      const { current } = yield* KeyRing
      const { payload, signature } = parts(yield* (yield* Tokens).issue(ada, 60))
      return `${encode({ alg: "none", kid: current.kid })}.${encode(payload)}.${signature}`
    }),
    "our public key used as a shared secret": Effect.gen(function* () {
      const { current } = yield* KeyRing
      const { x = "" } = yield* Effect.promise(() => exportJWK(current.verifying))
      return yield* signed(base64url.decode(x), { alg: "HS256", kid: current.kid }, claims)
    }),
    "somebody else's key under our key's name": Effect.gen(function* () {
      const { current } = yield* KeyRing
      const theirs = yield* Effect.promise(() => generateKeyPair("EdDSA", { crv: "Ed25519" }))
      return yield* signed(theirs.privateKey, { alg: "EdDSA", kid: current.kid }, claims)
    }),
    "a key that nobody knows": Effect.gen(function* () {
      const theirs = yield* Effect.promise(() => generateKeyPair("EdDSA", { crv: "Ed25519" }))
      return yield* signed(theirs.privateKey, { alg: "EdDSA", kid: "theirs" }, claims)
    }),
    "no key's name": Effect.flatMap(KeyRing, ({ current }) => signed(current.signing, { alg: "EdDSA" }, claims)),
    "another issuer": Effect.flatMap(KeyRing, ({ current }) =>
      signed(current.signing, { alg: "EdDSA", kid: current.kid }, claims, { issuer: "somebody" })
    ),
    "another audience": Effect.flatMap(KeyRing, ({ current }) =>
      signed(current.signing, { alg: "EdDSA", kid: current.kid }, claims, { audience: "another-shop" })
    ),
    "a role that there is not": Effect.flatMap(KeyRing, ({ current }) =>
      signed(current.signing, { alg: "EdDSA", kid: current.kid }, { ...claims, role: "emperor" })
    ),
    "no role": Effect.flatMap(KeyRing, ({ current }) =>
      signed(current.signing, { alg: "EdDSA", kid: current.kid }, { sub: "ADA", region: "us" })
    ),
    "nobody's name": Effect.flatMap(KeyRing, ({ current }) =>
      signed(current.signing, { alg: "EdDSA", kid: current.kid }, { role: "admin", region: "us" })
    ),
    "no end": Effect.flatMap(KeyRing, ({ current }) =>
      Effect.promise(() =>
        new SignJWT(claims)
          .setProtectedHeader({ alg: "EdDSA", kid: current.kid })
          .setIssuer("merkato")
          .setAudience("merkato")
          .sign(current.signing)
      )
    ),
    "nothing in it": Effect.succeed(""),
    "nonsense in it": Effect.succeed("not.a.token"),
    "too many parts": Effect.map(
      Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60)),
      (token) => `${token}.${token}`
    )
  }
  for (const [what, forge] of Object.entries(forgeries)) {
    test(`with ${what} is refused`, () =>
      inShop(
        shop,
        Effect.gen(function* () {
          const tokens = yield* Tokens
          const forged = yield* forge
          expect(yield* Effect.flip(tokens.verify(forged))).toEqual(invalid)
          expect(yield* Effect.flip(tokens.verifyService(forged))).toEqual(invalid)
        })
      ))
  }

  test("of another shop is refused, whatever it says", async () => {
    const theirs = await inShop(
      newFolder(),
      Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60))
    )
    const refusal = await inShop(shop, Effect.flip(Effect.flatMap(Tokens, (tokens) => tokens.verify(theirs))))
    expect(refusal).toEqual(invalid)
  })
})

const keysFile = (folder: string) => join(folder, "keys.json")
const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)
const readKeys = (folder: string): { keys: Array<Record<string, string>> } =>
  JSON.parse(readFileSync(keysFile(folder), "utf8"))

describe("the signing keys", () => {
  test("are made on the first start, for the owner's eyes only, and found again on the next", async () => {
    const folder = join(newFolder(), "not", "there", "yet")
    const token = await inShop(
      folder,
      Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60))
    )
    expect(mode(keysFile(folder))).toBe("600")
    expect(readdirSync(folder)).toEqual(["keys.json"])
    const before = readFileSync(keysFile(folder), "utf8")
    expect(
      await inShop(
        folder,
        Effect.flatMap(Tokens, (tokens) => tokens.verify(token))
      )
    ).toEqual(ada)
    expect(readFileSync(keysFile(folder), "utf8")).toBe(before)
  })

  test("are the same for processes that make them at the same time", async () => {
    const folder = newFolder()
    const program = `
      import { Effect, Layer } from "effect"
      import { KeyRing } from "./packages/infra/src/auth/KeyRing.ts"
      import { Tokens } from "./packages/infra/src/auth/Tokens.ts"
      // Begin together.
      await Bun.sleep(Number(process.argv[2]) - Date.now())
      const token = await Effect.runPromise(Effect.gen(function* () {
        const { current } = yield* KeyRing
        return current.kid + " " + (yield* (yield* Tokens).issueForServices)
      }).pipe(Effect.provide(Tokens.layer.pipe(Layer.provideMerge(KeyRing.layer(process.argv[1]))))))
      console.log(token)`
    const root = new URL("../../..", import.meta.url).pathname
    const begin = String(Date.now() + 1_500)
    const said = await Promise.all(
      [1, 2, 3, 4].map(async () => {
        const child = Bun.spawn([process.execPath, "-e", program, folder, begin], { cwd: root, stderr: "inherit" })
        return (await new Response(child.stdout).text()).trim().split(" ")
      })
    )
    const [kid] = said[0] ?? []
    expect(said.map(([own]) => own)).toEqual([kid, kid, kid, kid])
    expect(readKeys(folder).keys.map((key) => key["kid"])).toEqual([kid ?? ""])
    expect(readdirSync(folder)).toEqual(["keys.json"])
    expect(mode(keysFile(folder))).toBe("600")
    for (const [, token = ""] of said) {
      await inShop(
        folder,
        Effect.flatMap(Tokens, (tokens) => tokens.verifyService(token))
      )
    }
  })

  test("can be changed without signing anybody out: the first signs, all verify", async () => {
    const [oldShop, newShop, folder] = [newFolder(), newFolder(), newFolder()]
    const issue = Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60))
    const old = await inShop(oldShop, issue)
    await inShop(newShop, issue)
    const [before, after] = [readKeys(oldShop).keys, readKeys(newShop).keys]
    const verifying = (token: string) =>
      inShop(folder, Effect.exit(Effect.flatMap(Tokens, (tokens) => tokens.verify(token))))

    writeFileSync(keysFile(folder), JSON.stringify({ keys: [...after, ...before] }))
    expect(await verifying(old)).toEqual(Exit.succeed(ada))
    const fresh = await inShop(folder, issue)
    writeFileSync(keysFile(folder), JSON.stringify({ keys: after }))
    expect(await verifying(fresh)).toEqual(Exit.succeed(ada))
    expect(await verifying(old)).toEqual(Exit.fail(invalid))
  })

  test("come from the environment when they are there; nothing is written then", async () => {
    const folder = newFolder()
    const keys = readFileSync(keysFile(shop), "utf8")
    const env = { MERKATO_SIGNING_KEYS: keys }
    const token = await inShop(
      folder,
      Effect.flatMap(Tokens, (tokens) => tokens.issue(ada, 60)),
      env
    )
    expect(existsSync(keysFile(folder))).toBe(false)
    expect(
      await inShop(
        shop,
        Effect.flatMap(Tokens, (tokens) => tokens.verify(token))
      )
    ).toEqual(ada)
  })

  test("that cannot be used are told by their place, and never by what they are", async () => {
    const [secret] = readKeys(shop).keys
    const d = secret?.["d"] ?? ""
    expect(d.length).toBeGreaterThan(40)
    const damaged = [
      "",
      "{}",
      `{"keys":[]}`,
      `{"keys":[{"kty":"OKP","crv":"Ed25519","d":"${d}","kid":"a"}]}`,
      `{"keys":[{"kty":"OKP","crv":"X25519","x":"${d}","d":"${d}","kid":"a"}]}`,
      `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"!","d":"${d}","kid":"a"}]}`,
      `${JSON.stringify(secret)} and more`
    ]
    for (const text of damaged) {
      const folder = newFolder()
      writeFileSync(keysFile(folder), text)
      const failed = await inShop(folder, Effect.void).then(
        () => undefined,
        (error: unknown) => error
      )
      expect(failed).toBeInstanceOf(KeysUnreadable)
      expect(Bun.inspect(failed)).toContain(keysFile(folder))
      expect(Bun.inspect(failed)).not.toContain(d)
      expect(readFileSync(keysFile(folder), "utf8")).toBe(text)
      // An empty variable is none.
      if (text === "") continue
      const fromEnv = await inShop(folder, Effect.void, { MERKATO_SIGNING_KEYS: text }).then(
        () => undefined,
        (error: unknown) => error
      )
      expect(fromEnv).toBeInstanceOf(KeysUnreadable)
      expect(Bun.inspect(fromEnv)).toContain("MERKATO_SIGNING_KEYS")
      expect(Bun.inspect(fromEnv)).not.toContain(d)
    }
  })

  test("that are no file are told by their place", async () => {
    const folder = newFolder()
    mkdirSync(keysFile(folder))
    const failed = await inShop(folder, Effect.void).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(KeysUnreadable)
    expect(Bun.inspect(failed)).toContain(keysFile(folder))
    chmodSync(folder, 0o700)
  })
})

describe("a password", () => {
  const using = <A, E>(effect: (passwords: Passwords["Service"]) => Effect.Effect<A, E>) =>
    Effect.runPromise(Effect.provide(Effect.flatMap(Passwords, effect), Passwords.layer))

  test("is known again by its hash, and nothing else is", () =>
    using((passwords) =>
      Effect.gen(function* () {
        const hash = yield* passwords.hash("correct horse")
        expect(yield* passwords.verify("correct horse", hash)).toBe(true)
        for (const wrong of ["correct hors", "Correct horse", "correct horse ", "", "\u0000correct horse"]) {
          expect(yield* passwords.verify(wrong, hash)).toBe(false)
        }
      })
    ))

  test("is hashed with Argon2id, 19 MiB and two passes, and with a salt of its own", () =>
    using((passwords) =>
      Effect.gen(function* () {
        const [one, two] = yield* Effect.all([passwords.hash("same"), passwords.hash("same")])
        expect(one).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
        expect(one).not.toBe(two)
        expect(yield* passwords.verify("same", one)).toBe(true)
        expect(yield* passwords.verify("same", two)).toBe(true)
      })
    ))

  test("may be of any script, and as long as we allow", () =>
    using((passwords) =>
      Effect.gen(function* () {
        for (const password of ["пароль☃🍎", "x".repeat(128)]) {
          const hash = yield* passwords.hash(password)
          expect(yield* passwords.verify(password, hash)).toBe(true)
          expect(yield* passwords.verify(password.slice(0, -1), hash)).toBe(false)
        }
      })
    ))
})

test("a secret is 256 bits that come once", () =>
  Effect.gen(function* () {
    const { token } = yield* Secrets
    const many = yield* Effect.replicateEffect(token, 200)
    expect(new Set(many).size).toBe(200)
    for (const one of many) expect(base64url.decode(one)).toHaveLength(32)
  }).pipe(Effect.provide(Secrets.layer), Effect.runPromise))
