import { createHash } from "node:crypto"

/** JSON with its keys in order: equal values give equal text (as RFC 8785 wants it, for the values we have). */
export const canonicalJson = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`
  if (value !== null && typeof value === "object") {
    const fields = Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    return `{${fields.map(([key, field]) => `${JSON.stringify(key)}:${canonicalJson(field)}`).join(",")}}`
  }
  return JSON.stringify(value) ?? "null"
}

/** SHA-256 as 64 hexadecimal digits. */
export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex")

/**
 * An id that follows from other things: whoever derives it again gets the same one, which is how a repeated command
 * meets its own traces in other contexts.
 */
export const derivedId = (prefix: string, ...parts: ReadonlyArray<string>): string =>
  `${prefix}-${sha256(canonicalJson(parts)).slice(0, 40)}`
