/** A running shop, spoken to over REST as anybody else would, with tokens signed by its own keys. */
import { Clock, Context, Effect, Layer, Option, Random, Result, Schema } from "effect"
import { Config } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { UserId } from "@merkato/domain/kernel/Ids"
import { defaultRegion } from "@merkato/domain/kernel/Region"
import { Principal, type Role } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { pageOf } from "@merkato/rpc/rest/Json"
import { CommandFailed, ShopUnreachable } from "./Failure.ts"

export interface Request {
  readonly method: "GET" | "POST" | "PUT"
  readonly path: string
  readonly token?: string
  /** The Idempotency-Key. */
  readonly key?: string
  readonly body?: unknown
}

export interface Answer {
  readonly status: number
  readonly body: unknown
  /** It was given before, and nothing was done for it now. */
  readonly replayed: boolean
  readonly retryAfterMs: number | undefined
}

/** A single request may take this long. */
const requestTimeout = "30 seconds"

/** How long a request is repeated while the shop is busy, and while it is away altogether. */
const busyPatienceMs = 120_000
const awayPatienceMs = 30_000

const longestPauseMs = 2_000
const tokenSeconds = 12 * 60 * 60
const pageSize = 100

const Problem = Schema.Struct({ code: Schema.String, detail: Schema.String })
const decodeProblem = Schema.decodeUnknownOption(Problem)

/** What a refusal says; undefined for an answer that is none. */
export const problemOf = ({ status, body }: Answer): typeof Problem.Type | undefined =>
  status < 400
    ? undefined
    : Option.getOrElse(decodeProblem(body), () => ({ code: "unknown", detail: "The answer says no more" }))

const passing = new Set(["request_in_progress", "payment_in_progress"])

/** An answer that will be another one later: the same request may be sent again, with the same key. */
const isPassing = (answer: Answer): boolean =>
  answer.status === 503 ||
  answer.status === 429 ||
  (answer.status === 409 && passing.has(problemOf(answer)?.code ?? ""))

const reasonOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  const refused = "code" in cause && (cause.code === "ConnectionRefused" || cause.code === "ECONNREFUSED")
  return refused ? "nobody listens there" : cause.message
}

/** JSON as it is, anything else as text. */
const bodyOf = (text: string, type: string | null): unknown =>
  text !== "" && type?.includes("json") === true ? JSON.parse(text) : text

/** The shop at an address. */
export class Shop extends Context.Service<
  Shop,
  {
    readonly url: string
    /** One request, one answer, whatever it says. */
    readonly ask: (request: Request) => Effect.Effect<Answer, ShopUnreachable>
    /** Repeats the request, with its key, until the answer is a final one or patience ends. */
    readonly persist: (request: Request) => Effect.Effect<Answer, ShopUnreachable>
    /** The same, and reads the answer, which has to have this status. */
    readonly read: <A, I>(
      request: Request,
      status: number,
      schema: Schema.Codec<A, I>
    ) => Effect.Effect<A, ShopUnreachable | CommandFailed>
    /** All items of a list, over all its pages. */
    readonly all: <A, I>(
      path: string,
      item: Schema.Codec<A, I>,
      token?: string
    ) => Effect.Effect<ReadonlyArray<A>, ShopUnreachable | CommandFailed>
    /** A token for a user of the shop, signed with its keys; the same one for the same user. */
    readonly token: (userId: string, role: Role) => Effect.Effect<string>
    /** An answer that was not expected, as a sentence. */
    readonly unexpected: (request: Request, answer: Answer) => CommandFailed
    /** How many times a request was repeated so far. */
    readonly repeats: () => number
  }
>()("merkato/cli/Shop") {
  /** Fails at once when nobody is there, and when the data folder has no keys: tokens of others would be refused. */
  static readonly layer = (options: { readonly url: string; readonly dataDir: string }) =>
    Layer.effect(Shop, make(options)).pipe(
      Layer.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(options.dataDir)))),
      (layer) => Layer.unwrap(Effect.as(keysAreThere(options.dataDir), layer))
    )
}

const keysAreThere = Effect.fnUntraced(function* (dataDir: string) {
  const given = yield* Config.option(Config.String("MERKATO_SIGNING_KEYS"))
  if (Option.isSome(given) || existsSync(join(dataDir, "keys.json"))) return
  return yield* new CommandFailed({
    reason: `There are no keys in ${dataDir}: name the shop's data folder with --data-dir.`
  })
})

const make = Effect.fnUntraced(function* ({ url, dataDir }: { readonly url: string; readonly dataDir: string }) {
  const tokens = yield* Tokens
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  let repeats = 0

  const send = (request: Request) =>
    Effect.tryPromise({
      try: async (signal): Promise<Answer> => {
        const headers: Record<string, string> = {}
        if (request.token !== undefined) headers["authorization"] = `Bearer ${request.token}`
        if (request.key !== undefined) headers["idempotency-key"] = request.key
        if (request.body !== undefined) headers["content-type"] = "application/json"
        const response = await fetch(`${url}${request.path}`, {
          method: request.method,
          headers,
          signal,
          redirect: "manual",
          ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) })
        })
        const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN)
        return {
          status: response.status,
          body: bodyOf(await response.text(), response.headers.get("content-type")),
          replayed: response.headers.get("idempotent-replayed") === "true",
          retryAfterMs: Number.isFinite(retryAfter) ? retryAfter * 1_000 : undefined
        }
      },
      catch: (cause) => new ShopUnreachable({ url, reason: reasonOf(cause) })
    })

  const ask: Shop["Service"]["ask"] = (request) =>
    Effect.timeoutOrElse(send(request), {
      duration: requestTimeout,
      orElse: () => Effect.fail(new ShopUnreachable({ url, reason: `no answer within ${requestTimeout}` }))
    })

  const persist: Shop["Service"]["persist"] = Effect.fnUntraced(function* (request) {
    const begun = clock.currentTimeMillisUnsafe()
    for (let attempt = 0; ; attempt++) {
      const result = yield* Effect.result(ask(request))
      if (Result.isSuccess(result) && !isPassing(result.success)) return result.success
      const patienceMs = Result.isSuccess(result) ? busyPatienceMs : awayPatienceMs
      if (clock.currentTimeMillisUnsafe() - begun > patienceMs) return yield* Effect.fromResult(result)
      const told = Result.isSuccess(result) ? result.success.retryAfterMs : undefined
      const backoff = Math.min(longestPauseMs, 100 * 2 ** Math.min(attempt, 10))
      repeats += 1
      yield* Effect.sleep((told ?? backoff) * (0.75 + random.nextDoubleUnsafe() / 2))
    }
  })

  const unexpected: Shop["Service"]["unexpected"] = (request, answer) => {
    const problem = problemOf(answer)
    const said = problem === undefined ? "" : ` (${problem.code}: ${problem.detail})`
    return new CommandFailed({
      reason:
        answer.status === 401
          ? `The shop at ${url} does not take tokens signed with the keys in ${dataDir}: name its own data folder with --data-dir.`
          : `${request.method} ${request.path} was answered with ${answer.status}${said}.`
    })
  }

  const read: Shop["Service"]["read"] = Effect.fnUntraced(function* (request, status, schema) {
    const answer = yield* persist(request)
    if (answer.status !== status) return yield* unexpected(request, answer)
    return yield* Schema.decodeUnknownEffect(schema)(answer.body).pipe(
      Effect.mapError(
        () =>
          new CommandFailed({
            reason: `What ${url} answers to ${request.method} ${request.path} is not a shop's answer.`
          })
      )
    )
  })

  const all: Shop["Service"]["all"] = Effect.fnUntraced(function* (path, item, token) {
    const page = pageOf(item)
    const items = []
    let cursor: string | null = null
    do {
      const query: string = `${path.includes("?") ? "&" : "?"}limit=${pageSize}${cursor === null ? "" : `&cursor=${cursor}`}`
      const next: typeof page.Type = yield* read(
        { method: "GET", path: `${path}${query}`, ...(token === undefined ? {} : { token }) },
        200,
        page
      )
      items.push(...next.items)
      cursor = next.nextCursor
    } while (cursor !== null)
    return items
  })

  yield* ask({ method: "GET", path: "/healthz" })

  const issued = new Map<string, string>()
  const token: Shop["Service"]["token"] = Effect.fnUntraced(function* (userId, role) {
    const known = issued.get(`${role}/${userId}`)
    if (known !== undefined) return known
    const principal = new Principal({ userId: UserId.make(userId), role, region: defaultRegion })
    const made = yield* tokens.issue(principal, tokenSeconds)
    issued.set(`${role}/${userId}`, made)
    return made
  })

  return Shop.of({ url, ask, persist, read, all, token, unexpected, repeats: () => repeats })
})
