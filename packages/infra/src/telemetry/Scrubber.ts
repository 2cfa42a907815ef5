/** Takes what must never be written down out of values that are about to be: card numbers, tokens, passwords, keys. */
import { isCardNumber } from "@merkato/domain/payments/CardNumber"

export const removed = "[removed]"

/** Longest text that is looked through, in characters; the rest is cut off. */
const maxTextLength = 65_536

/** Most values of one log line or span attribute that are looked through; the rest is left out. */
const maxValues = 5_000

const maxDepth = 16

// ---------------------------------------------------------------------------------------------------------------------
// Digits in every dress

const digitsBefore = (codePoint: number): number =>
  /^\p{Nd}$/u.test(String.fromCodePoint(codePoint - 1)) ? 1 + digitsBefore(codePoint - 1) : 0

/** The digit that a character stands for, in whatever script: Unicode's decimal digits come in runs of ten from zero on. */
const digitOf = (char: string): number | undefined => {
  const code = char.charCodeAt(0)
  if (code >= 48 && code <= 57) return code - 48
  if (code < 128) return undefined
  const plain = char.normalize("NFKC")
  if (/^[0-9]$/.test(plain)) return Number(plain)
  return /^\p{Nd}$/u.test(char) ? digitsBefore(char.codePointAt(0) ?? 0) % 10 : undefined
}

/** Nothing to see: zero-width characters, direction marks, soft hyphens, accents. */
const isInvisible = (char: string) => /^[\p{Cf}\p{Mn}\p{Me}]$/u.test(char)

const isSeparator = (char: string) => /^[\s\p{Pd}\p{Z}._,/\\|·•*+~]$/u.test(char)

interface Group {
  readonly digits: string
  /** Where it stands in the text: its first character, and the one after its last. */
  readonly start: number
  readonly end: number
}

/** At most so many separators stand between two groups of one number. */
const maxSeparators = 3

/** Groups of digits, in runs that only separators interrupt. */
const runsOf = (text: string, isProtected: (at: number) => boolean): ReadonlyArray<ReadonlyArray<Group>> => {
  const runs: Array<Array<Group>> = []
  let run: Array<Group> = []
  let digits = ""
  let [start, end, between] = [0, 0, 0]
  const endGroup = () => {
    if (digits !== "") run.push({ digits, start, end })
    digits = ""
  }
  const endRun = () => {
    endGroup()
    if (run.length > 0) runs.push(run)
    run = []
  }
  for (let at = 0; at < text.length; ) {
    const char = String.fromCodePoint(text.codePointAt(at) ?? 0)
    const digit = isProtected(at) ? undefined : digitOf(char)
    if (digit !== undefined) {
      if (between > maxSeparators) endRun()
      if (digits === "") start = at
      digits += String(digit)
      end = at + char.length
      between = 0
    } else if (!isInvisible(char)) {
      if (isSeparator(char) && !isProtected(at)) {
        endGroup()
        between += 1
      } else {
        endRun()
      }
    }
    at += char.length
  }
  endRun()
  return runs
}

/** A time since 1970 in milliseconds, microseconds or nanoseconds. */
const isTime = (digits: string) => /^1\d{12}(?:\d{3}|\d{6})?$/.test(digits)

/** Prefixes and lengths that card schemes have given out: for digits that need not belong together. */
const ofAScheme =
  /^(?:4\d{12}(?:\d{3}){0,2}|5[0-8]\d{11,17}|6\d{12,18}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|35(?:2[89]|[3-8]\d)\d{12,15}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|220[0-4]\d{12,15}|8[12]\d{14}|9792\d{12}|(?:2131|1800)\d{11})$/

/** As cards are printed: equal groups with a shorter last one, or 4-6-4 and 4-6-5. */
const isPrinted = (lengths: ReadonlyArray<number>): boolean => {
  const [first = 0] = lengths
  const last = lengths.at(-1) ?? 0
  return (
    (lengths.slice(0, -1).every((length) => length === first) && last <= Math.max(first, 7)) ||
    /^4,6,[45]$/.test(lengths.join(","))
  )
}

/** `25.00 129.50`: what stands here, read to the ends of its words, is a list of amounts, and not a number in groups. */
const isAmounts = (text: string, start: number, end: number): boolean => {
  const before = /[0-9.]*$/.exec(text.slice(0, start))?.[0] ?? ""
  const after = /^[0-9.]*/.exec(text.slice(end))?.[0] ?? ""
  const tokens = `${before}${text.slice(start, end)}${after}`.split(/[^0-9.]+/)
  return tokens.every((token) => /^\d{1,9}\.\d{1,3}$/.test(token))
}

const isCard = (digits: string, lengths: ReadonlyArray<number>): boolean =>
  isCardNumber(digits) && (lengths.length === 1 || isPrinted(lengths) || ofAScheme.test(digits))

/** Where card numbers stand in a text. */
const cardsIn = (text: string, isProtected: (at: number) => boolean): ReadonlyArray<readonly [number, number]> =>
  runsOf(text, isProtected).flatMap((run) => {
    const found: Array<readonly [number, number]> = []
    let from = 0
    while (from < run.length) {
      const to = cardFrom(run, from, text)
      const [first, last] = [run[from], run[to ?? from]]
      if (first !== undefined && last !== undefined && (to !== undefined || hidesCard(first.digits))) {
        found.push([first.start, last.end])
      }
      from = (to ?? from) + 1
    }
    return found
  })

/** The last group of the card number that begins with this one, the longest there is. */
const cardFrom = (run: ReadonlyArray<Group>, from: number, text: string): number | undefined => {
  let digits = ""
  let found: number | undefined
  for (let to = from; to < run.length && digits.length < 19; to++) {
    digits += run[to]?.digits ?? ""
    const groups = run.slice(from, to + 1)
    const lengths = groups.map((group) => group.digits.length)
    if (!isCard(digits, lengths)) continue
    if (lengths.length > 1 && isAmounts(text, groups[0]?.start ?? 0, groups.at(-1)?.end ?? 0)) continue
    found = to
  }
  return found
}

/** Whether a card number is a part of more digits, without anything between. */
const hidesCard = (digits: string): boolean => {
  if (digits.length < 14 || isTime(digits)) return false
  for (let from = 0; from + 13 <= digits.length; from++) {
    for (let length = 13; length <= 19 && from + length <= digits.length; length++) {
      const part = digits.slice(from, from + length)
      if (ofAScheme.test(part) && isCardNumber(part)) return true
    }
  }
  return false
}

/** Ids that are no numbers, whatever their digits: UUIDs, trace contexts, and long hexadecimal words. */
const ids =
  /(?<![0-9a-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?=[0-9]*[a-f])[0-9a-f]{24,})(?![0-9a-z])/gi

const cut = (text: string, places: ReadonlyArray<readonly [number, number]>): string => {
  let out = ""
  let at = 0
  for (const [start, end] of places) {
    out += text.slice(at, start) + removed
    at = end
  }
  return out + text.slice(at)
}

const withoutCards = (text: string): string => {
  if (!mayHoldCard(text)) return text
  const places = [...text.matchAll(ids)].map((found) => [found.index, found.index + found[0].length] as const)
  const isProtected = (at: number) => places.some(([start, end]) => at >= start && at < end)
  return cut(text, cardsIn(text, isProtected))
}

/** Cheap, and right for nearly every text: fewer than 13 digits, in any script, hold no card. */
const mayHoldCard = (text: string): boolean => {
  let digits = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if ((code >= 48 && code <= 57) || code > 127) digits += 1
    if (digits >= 13) return true
  }
  return false
}

// ---------------------------------------------------------------------------------------------------------------------
// Secrets by their looks, and by their names

const secretWords =
  "password|passwd|passphrase|secret|token|authorization|cookie|api[-_ ]?key|private[-_ ]?key|card[-_ ]?number|cvv2?|cvc2?|credentials?|jwt"

const patterns: ReadonlyArray<readonly [pattern: RegExp, replacement: string]> = [
  [/(?<![A-Za-z0-9])tok_[A-Za-z0-9_-]+/g, removed],
  [/eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*/g, removed],
  [/\b(Bearer|Basic)(?:\s+|%20)[A-Za-z0-9._~+/=%-]{6,}/gi, `$1 ${removed}`],
  [/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/@]+@/gi, `$1:${removed}@`],
  [
    new RegExp(
      `((?:${secretWords})["']?\\s*(?:=>|[=:])\\s*)(?!${removed.replace(/[[\]]/g, "\\$&")})("(?:[^"\\\\]|\\\\.)*"|'(?:[^'\\\\]|\\\\.)*'|[^\\s&,;}"']+)`,
      "gi"
    ),
    `$1${removed}`
  ],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, removed]
]

const secretName = new RegExp(`(?:${secretWords.replaceAll("[-_ ]?", "")}|setcookie|pwd|signingkeys?|encryptionkeys?)$`)

/** Whether whatever stands under this name is a secret: `paymentToken`, `X-Api-Key`, `client_secret`. */
const isSecretName = (name: string): boolean => {
  const plain = name.toLowerCase().replaceAll(/[^a-z0-9]/g, "")
  return secretName.test(plain) || /^(?:pan|pin|cvn)$/.test(plain)
}

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

const plainly = (text: string): string =>
  withoutCards(patterns.reduce((rest, [pattern, replacement]) => rest.replaceAll(pattern, replacement), text))

const escaped = (text: string): string => {
  let decoded = text
  for (let depth = 0; depth < 3 && /%[0-9a-f]{2}/i.test(decoded); depth++) {
    decoded = percentDecoded(decoded)
    const clean = plainly(decoded)
    if (clean !== decoded) return clean
  }
  return text
}

const words = (text: string): string =>
  encodedWords.reduce(
    (rest, [pattern, decode]) =>
      rest.replaceAll(pattern, (word) => {
        const decoded = decode(word)
        return isReadable(decoded) && plainly(decoded) !== decoded ? removed : word
      }),
    text
  )

/** JSON in a text is looked through as what it is. */
const json = (text: string, depth: number): string => {
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
  return words(escaped(plainly(depth < 3 ? json(text, depth) : text)))
}

/** A text without secrets. */
export const scrubText = (text: string): string => textAt(text, 0)

// ---------------------------------------------------------------------------------------------------------------------
// Values with parts

/** A value that is digits and nothing else, and how to take it out. */
interface Leaf {
  readonly digits: string | undefined
  readonly isNumber: boolean
  readonly remove: () => void
}

/** Amounts, times and counts are numbers of their own, however many digits they have. */
const isQuantity = (name: string) =>
  /(?:minor|amount|price|total|ms|millis|nanos|at|time|timestamp|version|position|offset|count|bytes|qty)$/i.test(name)

const privateParts = new Set(["d", "k", "p", "q", "dp", "dq", "qi"])

/** Card numbers that are spread over values: digits one by one, groups, fields of an object. */
const removeSpread = (leaves: ReadonlyArray<Leaf>): void => {
  for (let from = 0; from < leaves.length; from++) {
    let digits = ""
    for (let to = from; to < leaves.length && digits.length < 19; to++) {
      const leaf = leaves[to]
      if (leaf?.digits === undefined) break
      digits += leaf.digits
      if (to === from || digits.length < 13) continue
      const window = leaves.slice(from, to + 1)
      const lengths = window.map((each) => each.digits?.length ?? 0)
      const together = window.some(({ isNumber }) => isNumber) ? isPrinted(lengths) : true
      if (!together || !isCardNumber(digits) || !ofAScheme.test(digits)) continue
      for (const each of window) each.remove()
    }
  }
}

const scrubbed = (root: unknown, depth: number): unknown => {
  const leaves: Array<Leaf> = []
  const seen = new Map<object, unknown>()
  let count = 0

  const set = (into: object, key: string | number, value: unknown) =>
    Object.defineProperty(into, key, { value, enumerable: true, configurable: true, writable: true })

  const leaf = (value: unknown, name: string, into: object, key: string | number): void => {
    const isNumber = typeof value === "number" || typeof value === "bigint"
    const text = isNumber || typeof value === "string" ? String(value) : ""
    const groups = text === "" || text.length > 40 ? [] : runsOf(text, () => false).flat()
    const digits = groups.map((group) => group.digits).join("")
    const only = digits !== "" && /^[\p{Nd}\p{Cf}\p{Mn}\p{Z}\p{Pd}.]+$/u.test(text.normalize("NFKC"))
    leaves.push({
      digits: only && !(isNumber && isQuantity(name)) ? digits : undefined,
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
  removeSpread(leaves)
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
