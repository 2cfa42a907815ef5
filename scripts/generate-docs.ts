// bun scripts/generate-docs.ts [--check]
// Writes docs/reference from the code: the REST surface from its HttpApi, the events from their schemas (a page, and AsyncAPI), the policies
// from their limits. With --check it
// writes nothing and fails when what is there differs.
import { readFileSync, writeFileSync } from "node:fs"
import { Schema } from "effect"
import { OpenApi } from "effect/http-api"
import { allEvents } from "@merkato/domain/events"
import type { PolicyOptions } from "@merkato/infra/policy/Limits"
import { operationNames, operations } from "@merkato/infra/policy/operations"
import { asyncApi } from "@merkato/rpc/events/AsyncApi"
import { Api } from "@merkato/rpc/rest/Api"

const folder = new URL("../docs/reference/", import.meta.url)

interface JsonSchema {
  readonly type?: string | ReadonlyArray<string>
  readonly $ref?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: ReadonlyArray<string>
  readonly items?: JsonSchema
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly allOf?: ReadonlyArray<JsonSchema>
}

/** A JSON schema in a few words: `string`, `integer`, `[{productId, qty}]`. */
const words = (schema: JsonSchema): string => {
  if (schema.$ref !== undefined) return schema.$ref.split("/").at(-1) ?? "object"
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" \\| ")
  if (schema.anyOf !== undefined) return schema.anyOf.map(words).join(" \\| ")
  if (schema.items !== undefined) return `[${words(schema.items)}]`
  if (schema.properties !== undefined) return `{${Object.keys(schema.properties).join(", ")}}`
  return typeof schema.type === "string" ? schema.type : "value"
}

const eventsPage = () => {
  const lines = [
    "# Events",
    "",
    "Generated from the schemas in `packages/domain` by `bun scripts/generate-docs.ts`; do not edit.",
    "",
    "Each travels in the envelope `{eventId, eventType, occurredAt, producer, traceId, correlationId, schemaVersion,",
    "partitionKey, region, aggregateVersion, payload}`. Events with the same key come in order; consumers see each at",
    "least once and act on it once.",
    ""
  ]
  for (const definition of allEvents) {
    const { schema, definitions } = Schema.toJsonSchemaDocument(definition.payload)
    const resolve = (part: JsonSchema): JsonSchema => {
      const name = part.$ref?.split("/").at(-1)
      const found = name === undefined ? undefined : Object.entries(definitions).find(([key]) => key === name)?.[1]
      return found === undefined ? part : { ...found }
    }
    const object: JsonSchema = resolve({ ...schema })
    lines.push(
      `## \`${definition.type}\``,
      "",
      `Topic \`${definition.topic}\`.`,
      "",
      "| field | type |",
      "| --- | --- |"
    )
    for (const [name, field] of Object.entries(object.properties ?? {})) {
      const optional = object.required?.includes(name) === true ? "" : " (optional)"
      lines.push(`| \`${name}\` | ${words(resolve(field))}${optional} |`)
    }
    lines.push("")
  }
  return `${lines.join("\n").trimEnd()}\n`
}

const apiPage = () => {
  const spec = OpenApi.fromApi(Api)
  const lines = [
    "# REST API",
    "",
    "Generated from `packages/rpc/src/rest/Api.ts` by `bun scripts/generate-docs.ts`; do not edit. The same as OpenAPI is",
    "at `/openapi.json` of a running shop, and to be tried out at `/docs`.",
    "",
    "Any request can also meet 400 `validation_failed` or `invalid_value`, 413 `payload_too_large`, 415",
    "`unsupported_media_type`, 500 `internal` and 503 `service_unavailable`.",
    "",
    "| method and path | answers | problems |",
    "| --- | --- | --- |"
  ]
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods ?? {})) {
      if (typeof operation !== "object" || !("responses" in operation)) continue
      const entries = Object.entries(operation.responses ?? {})
      const good = entries.filter(([status]) => Number(status) < 400).map(([status]) => status)
      const bad = entries
        .filter(([status]) => Number(status) >= 400)
        .map(([status, response]) => ({ status, codes: codesOf(response).filter((code) => !anywhere.has(code)) }))
        .filter(({ codes }) => codes.length > 0)
        .map(({ status, codes }) => `${status} ${codes.map((code) => `\`${code}\``).join(", ")}`)
      lines.push(`| ${method.toUpperCase()} \`${path}\` | ${good.join(", ")} | ${bad.join("; ")} |`)
    }
  }
  return `${lines.join("\n")}\n`
}

/** Problems that any request can meet; said once. */
const anywhere = new Set([
  "validation_failed",
  "invalid_value",
  "payload_too_large",
  "unsupported_media_type",
  "internal",
  "service_unavailable"
])

/** The codes that a problem's schema is described with. */
const codesOf = (response: unknown): ReadonlyArray<string> => {
  const text = JSON.stringify(response)
  const description = /"description":"([a-z_, ]+)"/.exec(text)?.[1]
  return description === undefined ? [] : description.split(", ")
}

/** Milliseconds as people say them: `30 s`, `2 min`. */
const time = (ms: number): string => {
  if (ms < 1_000 || ms % 100 !== 0) return `${ms} ms`
  return ms < 60_000 || ms % 60_000 !== 0 ? `${ms / 1_000} s` : `${ms / 60_000} min`
}

const orNone = <A>(value: A | null, text: (value: A) => string) => (value === null ? "none" : text(value))

const retryText = ({ attempts, backoff }: PolicyOptions) => {
  if (attempts === 1 || backoff === null) return "1 attempt"
  const tries = attempts === null ? "until it succeeds" : `${attempts} attempts`
  return backoff.kind === "exactly"
    ? `${tries}; retries after ${backoff.delaysMs.map(time).join(", ")}`
    : `${tries}; ${time(backoff.firstMs)}, each ${backoff.factor} times the one before, at most ${time(backoff.maxMs)}${backoff.jitter ? ", ±20 %" : ""}`
}

const policiesPage = () => {
  const lines = [
    "# Policies",
    "",
    "Generated from `packages/infra/src/policy/operations.ts` by `bun scripts/generate-docs.ts`; do not edit.",
    "",
    "Every guarded operation goes through the same policies in the same order: deadline( rate limit( bulkhead( retry( breaker(",
    "attempt timeout( call )))))). Why, and how to change limits at run time, is in",
    "[ADR 11](../adr/0011-policies.md); limits in force and the state of each circuit are at `GET /ops/policies` (admin).",
    ""
  ]
  for (const name of operationNames) {
    const policy: PolicyOptions = operations[name]
    const later = policy.later === true ? " That does not exist yet: nobody calls it." : ""
    const rows: ReadonlyArray<readonly [string, string]> = [
      ["deadline", orNone(policy.deadlineMs, time)],
      [
        "rate limit",
        orNone(policy.rateLimit, ({ calls, perMs }) => `${calls} calls in ${time(perMs)}, else \`RateLimited\``)
      ],
      [
        "bulkhead",
        orNone(
          policy.bulkhead,
          ({ concurrent, waiting }) => `${concurrent} at once, ${waiting} waiting, else \`BulkheadFull\``
        )
      ],
      ["retry", retryText(policy)],
      [
        "retry budget",
        orNone(
          policy.retryBudget,
          ({ tokens, refund }) =>
            `${tokens} retries, ${refund} of one back for each call that ends well, else \`RetryBudgetSpent\``
        )
      ],
      [
        "breaker",
        orNone(
          policy.breaker,
          ({ failuresInARow, failingRate, openMs }) =>
            `${failuresInARow} failed attempts in a row, or ${failingRate.share * 100} % of the last ${failingRate.ofLast} (at least ${failingRate.atLeast}) → open ${time(openMs)} → half-open`
        )
      ],
      ["attempt timeout", orNone(policy.attemptTimeoutMs, time)]
    ]
    lines.push(
      `## \`${name}\``,
      "",
      `${policy.about.charAt(0).toUpperCase()}${policy.about.slice(1)}. Used by ${policy.usedBy}.${later}`,
      "",
      "| policy | limit |",
      "| --- | --- |",
      ...rows.map(([policy, limit]) => `| ${policy} | ${limit} |`),
      ""
    )
  }
  return `${lines.join("\n").trimEnd()}\n`
}

const pages: ReadonlyArray<readonly [string, string]> = [
  ["events.md", eventsPage()],
  ["api.md", apiPage()],
  ["policies.md", policiesPage()],
  ["asyncapi.json", `${JSON.stringify(asyncApi(), null, 2)}\n`]
]

const check = process.argv.includes("--check")
let stale = false
for (const [name, text] of pages) {
  const file = new URL(name, folder)
  if (!check) {
    writeFileSync(file, text)
    continue
  }
  const present = (() => {
    try {
      return readFileSync(file, "utf8")
    } catch {
      return ""
    }
  })()
  if (present !== text) {
    stale = true
    console.error(`docs/reference/${name} is out of date; run: bun scripts/generate-docs.ts`)
  }
}
process.exit(stale ? 1 : 0)
