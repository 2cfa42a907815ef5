/** How deep objects and arrays may lie in each other; the deepest body that anything here asks for has 3 levels. */
const maxDepth = 32

/**
 * What `JSON.parse` lets pass and nobody means: a name twice in one object, of which it keeps the last (another reader
 * in between may keep the first), and nesting without end. Undefined when there is nothing of it. Text that is not JSON
 * is left to the parser.
 */
export const faultOf = (text: string): string | undefined => {
  /** The names of each open object; undefined for an array. */
  const open: Array<Set<string> | undefined> = []
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        if (open.length === maxDepth) return `Expected at most ${maxDepth} levels of nesting`
        open.push(text.charCodeAt(at) === 0x7b ? new Set() : undefined)
        break
      case 0x7d: // }
      case 0x5d: // ]
        open.pop()
        break
      case 0x22: {
        const end = endOfString(text, at)
        const names = open.at(-1)
        if (names !== undefined && isName(text, end)) {
          const name = nameOf(text.slice(at, end))
          if (names.has(name)) return `Expected each name once, got ${JSON.stringify(name.slice(0, 64))} twice`
          names.add(name)
        }
        at = end - 1
        break
      }
    }
  }
  return undefined
}

/** Just behind the closing quote of the string that opens at `start`. */
const endOfString = (text: string, start: number): number => {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x5c) at++
    else if (code === 0x22) return at + 1
  }
  return text.length
}

/** A string is a name when a colon follows. */
const isName = (text: string, end: number): boolean => {
  let at = end
  while (/[ \t\r\n]/.test(text.charAt(at))) at++
  return text.charCodeAt(at) === 0x3a
}

/** The name that a literal stands for: `"\u0071ty"` is `qty`. */
const nameOf = (literal: string): string => {
  if (!literal.includes("\\")) return literal.slice(1, -1)
  try {
    return String(JSON.parse(literal))
  } catch {
    return literal
  }
}
