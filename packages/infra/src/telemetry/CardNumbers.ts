/** Finds card numbers, in whatever dress their digits come. */
import { isCardNumber } from "@merkato/domain/payments/CardNumber"

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

/** Where card numbers stand in a text: their first characters, and the ones after their last. */
export const cardsIn = (text: string): ReadonlyArray<readonly [start: number, end: number]> => {
  if (!mayHoldCard(text)) return []
  const places = [...text.matchAll(ids)].map((found) => [found.index, found.index + found[0].length] as const)
  const isProtected = (at: number) => places.some(([start, end]) => at >= start && at < end)
  return runsOf(text, isProtected).flatMap((run) => {
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
}

/** Longest text that may be digits and nothing else, in characters. */
const maxAlone = 40

/** The digits of a text that is digits and what stands between them, and nothing else. */
export const digitsAlone = (text: string): string | undefined => {
  if (text.length > maxAlone || !/^[\p{Nd}\p{Cf}\p{Mn}\p{Z}\p{Pd}.]+$/u.test(text.normalize("NFKC"))) return undefined
  const digits = runsOf(text, () => false).flatMap((run) => run.map((group) => group.digits))
  return digits.length === 0 ? undefined : digits.join("")
}

/** A value of several that stand beside each other; its digits, when it is digits and nothing else. */
export interface Part {
  readonly digits: string | undefined
  readonly isNumber: boolean
}

/** The values that card numbers are spread over: digits one by one, groups, fields of an object. */
export const spreadOver = <P extends Part>(parts: ReadonlyArray<P>): ReadonlySet<P> => {
  const found = new Set<P>()
  for (let from = 0; from < parts.length; from++) {
    let digits = ""
    for (let to = from; to < parts.length && digits.length < 19; to++) {
      const part = parts[to]
      if (part?.digits === undefined) break
      digits += part.digits
      if (to === from || digits.length < 13) continue
      const window = parts.slice(from, to + 1)
      const lengths = window.map((each) => each.digits?.length ?? 0)
      const together = window.some(({ isNumber }) => isNumber) ? isPrinted(lengths) : true
      if (!together || !isCardNumber(digits) || !ofAScheme.test(digits)) continue
      for (const each of window) found.add(each)
    }
  }
  return found
}
