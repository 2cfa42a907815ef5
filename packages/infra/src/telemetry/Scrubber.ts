/** Takes what must never be written down out of values that are about to be: card numbers, tokens, passwords, keys. */
import { cardsIn, digitsAlone, type Part, spreadOver } from "./CardNumbers.ts"
import { isSecretName, removed, withoutSecrets } from "./Secrets.ts"

/** Longest text that is looked through, in characters; the rest is cut off. */
const maxTextLength = 65_536

/** Most values of one log line or span attribute that are looked through; the rest is left out. */
const maxValues = 5_000

const maxDepth = 16

const percentDecoded = (text: string): string => {
  try {
    return decodeURIComponent(text.replaceAll("+", " "))
  } catch {
    // One broken escape does not hide the others.
    return text.replaceAll(/%[0-7][0-9a-f]/gi, (found) => String.fromCharCode(Number.parseInt(found.slice(1), 16)))
  }
}

const isReadable = (text: string) => /^[\t\n\r\x20-\x7e]+$/.test(text)

/** Base64, and digits as hexadecimal bytes. */
const encodedWords: ReadonlyArray<readonly [pattern: RegExp, decode: (word: string) => string]> = [
  [/[A-Za-z0-9+/_-]{18,}={0,2}/g, (word) => Buffer.from(word, "base64").toString("latin1")],
  [/(?<![0-9a-f])(?:3[0-9]|2[0d]){13,40}(?![0-9a-f])/gi, (word) => Buffer.from(word, "hex").toString("latin1")]
]

const cut = (text: string, places: ReadonlyArray<readonly [number, number]>): string => {
  let out = ""
  let at = 0
  for (const [start, end] of places) {
    out += text.slice(at, start) + removed
    at = end
  }
  return out + text.slice(at)
}

/** A text without what shows in it as it is written. */
const asWritten = (text: string): string => {
  const clean = withoutSecrets(text)
  return cut(clean, cardsIn(clean))
}

/** A text without what shows once it is decoded; it stays as it is when nothing does. */
const asPercentDecoded = (text: string): string => {
  let decoded = text
  for (let depth = 0; depth < 3 && /%[0-9a-f]{2}/i.test(decoded); depth++) {
    decoded = percentDecoded(decoded)
    const clean = asWritten(decoded)
    if (clean !== decoded) return clean
  }
  return text
}

/** A text without the words in which something shows once they are decoded. */
const asDecodedWords = (text: string): string =>
  encodedWords.reduce(
    (rest, [pattern, decode]) =>
      rest.replaceAll(pattern, (word) => {
        const decoded = decode(word)
        return isReadable(decoded) && asWritten(decoded) !== decoded ? removed : word
      }),
    text
  )

/** JSON in a text is looked through as what it is. */
const asJson = (text: string, depth: number): string => {
  if (!/^\s*[[{]/.test(text)) return text
  try {
    const parsed: unknown = JSON.parse(text)
    const clean = JSON.stringify(scrubbed(parsed, depth + 1))
    return clean === JSON.stringify(parsed) ? text : clean
  } catch {
    return text
  }
}

const textAt = (whole: string, depth: number): string => {
  const text = whole.length > maxTextLength ? `${whole.slice(0, maxTextLength)}…` : whole
  if (text.length < 5) return text
  return asDecodedWords(asPercentDecoded(asWritten(depth < 3 ? asJson(text, depth) : text)))
}

/** A text without secrets. */
export const scrubText = (text: string): string => textAt(text, 0)

/** A value without parts of its own, and how to take it out. */
interface Leaf extends Part {
  readonly remove: () => void
}

/** Amounts, times and counts are numbers of their own, however many digits they have. */
const isQuantity = (name: string) =>
  /(?:minor|amount|price|total|ms|millis|nanos|at|time|timestamp|version|position|offset|count|bytes|qty)$/i.test(name)

const privateParts = new Set(["d", "k", "p", "q", "dp", "dq", "qi"])

const scrubbed = (root: unknown, depth: number): unknown => {
  const leaves: Array<Leaf> = []
  const seen = new Map<object, unknown>()
  let count = 0

  const set = (into: object, key: string | number, value: unknown) =>
    Object.defineProperty(into, key, { value, enumerable: true, configurable: true, writable: true })

  const leaf = (value: unknown, name: string, into: object, key: string | number): void => {
    const isNumber = typeof value === "number" || typeof value === "bigint"
    const text = isNumber || typeof value === "string" ? String(value) : ""
    leaves.push({
      digits: isNumber && isQuantity(name) ? undefined : digitsAlone(text),
      isNumber,
      remove: () => set(into, key, removed)
    })
  }

  const visit = (value: unknown, name: string, into: object, key: string | number, level: number): void => {
    count += 1
    if (isSecretName(name) && value !== null && value !== undefined && typeof value !== "boolean") {
      set(into, key, removed)
      return
    }
    switch (typeof value) {
      case "string":
        set(into, key, textAt(value, depth))
        return leaf(value, name, into, key)
      case "number":
      case "bigint":
        set(into, key, isQuantity(name) || scrubText(String(value)) === String(value) ? value : removed)
        return leaf(value, name, into, key)
      case "object":
        if (value !== null) return (set(into, key, parts(value, level)), undefined)
    }
    set(into, key, typeof value === "function" || typeof value === "symbol" ? String(value).slice(0, 100) : value)
  }

  const parts = (value: object, level: number): unknown => {
    const known = seen.get(value)
    if (known !== undefined) return known
    if (level > maxDepth || count > maxValues) return "[left out]"
    if (value instanceof Date) return value
    if (value instanceof URL) return scrubText(value.href)
    if (ArrayBuffer.isView(value)) return bytes(value)
    if (value instanceof Error) return error(value, level)
    if (value instanceof Map) return fill([...value], Array<unknown>(), level, value)
    if (value instanceof Set) return fill([...value], Array<unknown>(), level, value)
    if (Array.isArray(value)) return fill(value, Array<unknown>(), level, value)
    if ("toJSON" in value && typeof value.toJSON === "function") {
      const plain: unknown = value.toJSON()
      if (plain !== value) {
        const box: { value?: unknown } = {}
        visit(plain, "", box, "value", level + 1)
        return box.value
      }
    }
    return fill(value, {}, level, value)
  }

  const fill = (from: object, into: object, level: number, known: object): object => {
    seen.set(known, into)
    const isKey = !Array.isArray(from) && "kty" in from
    for (const [name, part] of Object.entries(from)) {
      if (count > maxValues) break
      const key = Array.isArray(from) ? Number(name) : textAt(name, depth)
      if (isKey && privateParts.has(name)) set(into, key, removed)
      else visit(part, Array.isArray(from) ? "" : name, into, key, level + 1)
    }
    return into
  }

  /** The same kind of error, with its text and its fields cleaned. */
  const error = (value: Error, level: number): unknown => {
    const copy: object = Object.create(Object.getPrototypeOf(value))
    fill(value, copy, level, value)
    const hidden = (name: string, part: unknown) =>
      Object.defineProperty(copy, name, { value: part, configurable: true, writable: true, enumerable: false })
    hidden("message", scrubText(value.message))
    hidden("name", value.name)
    hidden("stack", value.stack === undefined ? undefined : scrubText(value.stack))
    if (value.cause !== undefined) {
      const box: { cause?: unknown } = {}
      visit(value.cause, "", box, "cause", level + 1)
      hidden("cause", box.cause)
    }
    return copy
  }

  const bytes = (value: ArrayBufferView): unknown => {
    const text = Buffer.from(value.buffer, value.byteOffset, Math.min(value.byteLength, maxTextLength)).toString(
      "latin1"
    )
    return isReadable(text) && scrubText(text) !== text ? removed : value
  }

  const box: { root?: unknown } = {}
  visit(root, "", box, "root", 0)
  for (const each of spreadOver(leaves)) each.remove()
  return box.root
}

/** A value without secrets; what is clean comes back equal, though not always the same object. */
export const scrub = (value: unknown): unknown => (typeof value === "string" ? scrubText(value) : scrubbed(value, 0))

/** A value that stands under a name: a log annotation, a span attribute. */
export const scrubNamed = (name: string, value: unknown): unknown => {
  if (isSecretName(name) && value !== null && value !== undefined && typeof value !== "boolean") return removed
  if (isQuantity(name) && typeof value === "number") return value
  return scrub(value)
}
