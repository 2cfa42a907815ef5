import { Effect, Layer } from "effect"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"

/** An answer of the shop, its body read. `body` is typed loosely: tests say what they expect of it. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Readonly<Record<string, unknown>>
}

export interface RequestOptions {
  readonly token?: string | undefined
  readonly key?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

/** A shopper's or an administrator's way into a running shop, over its REST surface. */
export class Client {
  constructor(
    readonly url: string,
    readonly token?: string
  ) {}

  as(token: string | undefined) {
    return new Client(this.url, token)
  }

  async request(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
    const token = "token" in options ? options.token : this.token
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(options.key === undefined ? {} : { "idempotency-key": options.key }),
        ...(options.body === undefined ? {} : { "content-type": "application/json" }),
        ...options.headers
      },
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
      ...(options.signal === undefined ? {} : { signal: options.signal })
    })
    const text = await response.text()
    const body: unknown = text === "" ? {} : JSON.parse(text)
    return { status: response.status, headers: response.headers, body: isRecord(body) ? body : { value: body } }
  }

  get(path: string, options?: RequestOptions) {
    return this.request("GET", path, options)
  }

  post(path: string, body?: unknown, options: RequestOptions = {}) {
    return this.request("POST", path, { ...options, body })
  }

  /** Asks again, with the same key, while the shop says that it is not the shop's last word (429, 503, in progress) or is away. */
  async persist(ask: () => Promise<Answer>, withinMs = 120_000): Promise<Answer> {
    const deadline = Date.now() + withinMs
    for (;;) {
      const answer = await ask().catch(() => undefined)
      const again =
        answer === undefined ||
        answer.status === 503 ||
        answer.status === 429 ||
        answer.body["code"] === "request_in_progress" ||
        answer.body["code"] === "payment_in_progress"
      if (!again) return answer
      if (Date.now() > deadline)
        throw new Error(`no final answer in time, the last was ${JSON.stringify(answer?.body)}`)
      await Bun.sleep(100)
    }
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** A text field of an answer; fails the test when it is not there. */
export const text = (answer: Answer, field: string): string => {
  const value = answer.body[field]
  if (typeof value !== "string") throw new Error(`no ${field} in ${answer.status} ${JSON.stringify(answer.body)}`)
  return value
}

/** A token signed with the keys of a data folder. */
export const tokenFor = (dataDir: string, userId: string, role: "shopper" | "admin") =>
  Effect.gen(function* () {
    const tokens = yield* Tokens
    return yield* tokens.issue(new Principal({ userId: UserId.make(userId), role, region: "us" }), 3_600)
  }).pipe(Effect.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(dataDir)))), Effect.runPromise)
