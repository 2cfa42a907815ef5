import { Client, type Answer, type RequestOptions } from "./Client.ts"

type Json = Readonly<Record<string, unknown>>

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

/** One request as a consumer sends it, and the answer that they read; with placeholders for what is new each time. */
export interface Example {
  readonly who: string
  readonly request: Json
  readonly response: Json
}

/** Fields whose values are new each time, or for people to read: programs go by the code of a problem. */
const fresh = new Set([
  "accessToken",
  "refreshToken",
  "guestToken",
  "secret",
  "traceId",
  "durationMs",
  "requestHeaders",
  "detail",
  "message"
])

/** Headers that consumers go by; the others every answer has, and other tests look at them. */
const told = ["content-type", "location", "etag", "retry-after", "idempotent-replayed", "www-authenticate"]

const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
const idPattern = new RegExp(`(?:[A-Z]+-)?${uuid}|DLV-[0-9a-f]{32}`, "g")
const timePattern = /\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z/g

/** Keeps what is asked and answered as examples: ids become `ORDER-1`, `ORDER-2` in the order in which they appear. */
export class Examples {
  readonly all: Record<string, Example> = {}
  private readonly ids = new Map<string, string>()
  private readonly counts = new Map<string, number>()

  /** A client that keeps each exchange that it is told to, under a name. */
  of(who: string, client: Client) {
    return async (name: string, method: string, path: string, options: RequestOptions = {}): Promise<Answer> => {
      const answer = await client.request(method, path, options)
      const { key, body, headers } = options
      this.all[name] = {
        who,
        request: {
          method,
          path: this.plain(path),
          ...(key === undefined ? {} : { idempotencyKey: key }),
          ...(headers === undefined ? {} : { headers }),
          ...(body === undefined ? {} : { body: this.plain(body) })
        },
        response: {
          status: answer.status,
          headers: Object.fromEntries(
            told.flatMap((header) => {
              const value = answer.headers.get(header)
              return value === null ? [] : [[header, this.plain(value)]]
            })
          ),
          ...(answer.headers.get("content-type") === null ? {} : { body: this.plain(answer.body) })
        }
      }
      return answer
    }
  }

  private plain(value: unknown, field = ""): unknown {
    if (fresh.has(field) && value !== null) return `<${field}>`
    if (field === "nextCursor" && value !== null) return "<cursor>"
    if (Array.isArray(value)) return value.map((each) => this.plain(each))
    if (isJson(value))
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.plain(each, key)]))
    if (typeof value !== "string") return value
    return value
      .replace(idPattern, (id) => this.named(id))
      .replace(timePattern, "<time>")
      .replace(/\b[0-9a-f]{32}\b/g, "<hash>")
  }

  private named(id: string): string {
    const known = this.ids.get(id)
    if (known !== undefined) return known
    const kind = /^[A-Z]+/.exec(id)?.[0] ?? "ID"
    const nth = (this.counts.get(kind) ?? 0) + 1
    this.counts.set(kind, nth)
    this.ids.set(id, `${kind}-${nth}`)
    return `${kind}-${nth}`
  }
}

/** Where an answer is no longer what a consumer reads there. What has been added is no difference to them. */
export const differences = (expected: unknown, found: unknown, at = ""): ReadonlyArray<string> => {
  if (Array.isArray(expected) && Array.isArray(found)) {
    if (expected.length !== found.length) return [`${at}: ${found.length} items, not ${expected.length}`]
    return expected.flatMap((each, nth) => differences(each, found[nth], `${at}[${nth}]`))
  }
  if (isJson(expected) && isJson(found)) {
    return Object.entries(expected).flatMap(([key, each]) => differences(each, found[key], `${at}.${key}`))
  }
  return Bun.deepEquals(expected, found) ? [] : [`${at}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`]
}
