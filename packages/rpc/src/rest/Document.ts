import { idempotencyKeyRequired } from "./Problems.ts"

const header = (description: string) => ({ description, schema: { type: "string" } })

const headers = {
  "Correlation-Id": header("The caller's, or a new one"),
  traceparent: header("The trace of the request (W3C Trace Context)"),
  Location: header("Where to find what was made, or is under way"),
  ETag: header("What If-None-Match and If-Match compare"),
  "Retry-After": header("Seconds until it is worth asking again"),
  "Idempotent-Replayed": header("`true`: this is the first answer again, and nothing was done twice"),
  "WWW-Authenticate": header("Bearer")
}
type Header = keyof typeof headers

/** What answers with the address of what was made, or is under way. */
const located = new Set([
  "catalogue.addProduct",
  "flash-sales.scheduleFlashSale",
  "carts.createCart",
  "orders.placeOrder",
  "orders.payOrder",
  "orders.checkout",
  "webhooks.subscribe"
])
/** Changes that answer with the new entity tag. */
const retagged = new Set(["catalogue.changeProduct", "catalogue.setPrice"])

type Json = Record<string, unknown>

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const objectsIn = (value: unknown): ReadonlyArray<readonly [string, Json]> =>
  Object.entries(isJson(value) ? value : {}).flatMap(([key, field]) => (isJson(field) ? [[key, field] as const] : []))

const listIn = (value: unknown): ReadonlyArray<Json> => (Array.isArray(value) ? value.filter(isJson) : [])

/** Which headers an answer has besides those that every answer has. */
const headersOf = (operation: Json, status: number, description: string): ReadonlyArray<Header> => {
  const id = String(operation["operationId"])
  const success = status >= 200 && status < 300
  const idempotent = listIn(operation["parameters"]).some((parameter) => parameter["name"] === "idempotency-key")
  const conditional = objectsIn(operation["responses"]).some(([other]) => other === "304")
  const found: Array<Header> = ["Correlation-Id", "traceparent"]
  if (success && located.has(id)) found.push("Location")
  if (conditional ? success || status === 304 : success && retagged.has(id)) found.push("ETag")
  if (idempotent && (success || [402, 403, 404, 409, 422].includes(status))) found.push("Idempotent-Replayed")
  if (status === 503 || /_in_progress/.test(description)) found.push("Retry-After")
  if (status === 401) found.push("WWW-Authenticate")
  return found
}

/** Completes the OpenAPI document with what its schemas cannot say: the headers of answers, and where a key must be sent. */
export const documented = (document: Json): Json => {
  for (const [, path] of objectsIn(document["paths"])) {
    for (const [, operation] of objectsIn(path)) {
      for (const parameter of listIn(operation["parameters"])) {
        if (parameter["name"] !== "idempotency-key") continue
        parameter["required"] = JSON.stringify(operation["responses"]).includes(idempotencyKeyRequired)
        parameter["description"] = "A new one for what is to be done anew; the same for a repeat. Kept for 24 hours."
        parameter["schema"] = { type: "string", pattern: "^[\\x21-\\x7e]{1,255}$" }
      }
      for (const [status, response] of objectsIn(operation["responses"])) {
        response["headers"] = Object.fromEntries(
          headersOf(operation, Number(status), String(response["description"])).map((name) => [
            name,
            { $ref: `#/components/headers/${name}` }
          ])
        )
      }
    }
  }
  const components = isJson(document["components"]) ? document["components"] : {}
  return { ...document, components: { ...components, headers } }
}
