/** JSON with its keys in order: equal values give equal text (as RFC 8785 wants it, for the values we have). */
export const canonicalJson = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`
  if (value !== null && typeof value === "object") {
    const fields = value as Readonly<Record<string, unknown>>
    const keys = Object.keys(fields).toSorted()
    const told = keys.filter((key) => fields[key] !== undefined)
    return `{${told.map((key) => `${JSON.stringify(key)}:${canonicalJson(fields[key])}`).join(",")}}`
  }
  return JSON.stringify(value) ?? "null"
}

/** SHA-256 as 64 hexadecimal digits. */
export const sha256 = (text: string): string => Bun.CryptoHasher.hash("sha256", text, "hex")

/**
 * An id that follows from other things: whoever derives it again gets the same one, which is how a repeated command
 * meets its own traces in other contexts.
 */
export const derivedId = (prefix: string, ...parts: ReadonlyArray<string>): string =>
  `${prefix}-${sha256(canonicalJson(parts)).slice(0, 40)}`

/** The time that an id of ours begins with, behind its prefix: the first 12 digits of its UUIDv7. */
const timeIn = (id: string): string => {
  const [, high = "", low = ""] = /([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/.exec(id) ?? []
  return high + low
}

/**
 * The same for what belongs to something that has an id already. It begins with the time of that id: so what happens at one
 * time lies together in the indexes, where digests would touch a page each, and in a big index one that is not in memory.
 */
export const derivedIdOf = (prefix: string, id: string, ...parts: ReadonlyArray<string>): string => {
  const time = timeIn(id)
  return `${prefix}-${time}${sha256(canonicalJson([id, ...parts])).slice(0, 40 - time.length)}`
}
