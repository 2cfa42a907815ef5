/** Small XML documents from people we do not trust: namespaces resolved, no document types, no entities but XML's own five. */
import { Data, Result } from "effect"

export interface Element {
  /** The namespace's URI; empty for none. */
  readonly namespace: string
  /** Without its prefix. */
  readonly name: string
  /** By name; in a namespace, `{uri}name`. Declarations of namespaces are not among them. */
  readonly attributes: ReadonlyMap<string, string>
  /** All characters directly inside, references resolved. */
  readonly text: string
  readonly children: ReadonlyArray<Element>
}

/** A text that is not one well-formed document, or one with a document type. */
export class NotXml extends Data.TaggedError("NotXml")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** Elements inside of elements; a message of ours has 6. */
const maxDepth = 16

const entities: ReadonlyMap<string, string> = new Map([
  ["lt", "<"],
  ["gt", ">"],
  ["amp", "&"],
  ["quot", '"'],
  ["apos", "'"]
])

/** What XML 1.0 has no character for (production 2, "Char"). */
const unsayable = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u
const allUnsayable = new RegExp(unsayable, "gu")

/** The text with U+FFFD for what XML cannot say (lone surrogates among them), so that it can be read again. */
export const sayable = (text: string): string => (unsayable.test(text) ? text.replaceAll(allUnsayable, "\uFFFD") : text)

const refuse = (reason: string): never => {
  throw new NotXml({ reason })
}

/** The text of a reference (production 67), of which the parser found the `&`. */
const referenced = (reference: string, hex?: string, decimal?: string, name?: string): string => {
  if (name !== undefined) return entities.get(name) ?? refuse(`an entity that is not XML's own: ${reference}`)
  if (hex === undefined && decimal === undefined) return refuse("an & that begins no reference")
  const code = hex === undefined ? Number.parseInt(decimal ?? "", 10) : Number.parseInt(hex, 16)
  const character = code > 0x10ffff ? "\u0000" : String.fromCodePoint(code)
  return unsayable.test(character) ? refuse(`a character that XML does not have: ${reference}`) : character
}

const resolve = (text: string): string =>
  text.includes("&") ? text.replaceAll(/&(?:(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|(\w{1,16}));)?/g, referenced) : text

/** Declared prefixes, the innermost first. */
interface Namespaces {
  readonly prefix: string
  readonly uri: string
  readonly outer: Namespaces | undefined
}

const xml = "http://www.w3.org/XML/1998/namespace"

const namespaceOf = (prefix: string, namespaces: Namespaces | undefined): string => {
  for (let scope = namespaces; scope !== undefined; scope = scope.outer) if (scope.prefix === prefix) return scope.uri
  return prefix === "" ? "" : prefix === "xml" ? xml : refuse(`the prefix ${prefix} means nothing`)
}

const nothing: ReadonlyMap<string, string> = new Map()

/** A name (production 5). */
const name =
  /[:A-Z_a-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u02FF\u0370-\u037D\u037F-\u1FFF\u200C-\u200D\u2070-\u218F\u2C00-\u2FEF\u3001-\uD7FF\uF900-\uFDCF\uFDF0-\uFFFD\u{10000}-\u{EFFFF}][-.0-9:A-Z_a-z\u00B7\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u037D\u037F-\u1FFF\u200C-\u200D\u203F-\u2040\u2070-\u218F\u2C00-\u2FEF\u3001-\uD7FF\uF900-\uFDCF\uFDF0-\uFFFD\u{10000}-\u{EFFFF}]*/uy
const space = /[ \t\n]*/y

/** Reads a document from its beginning to its end, each character once. */
class Reader {
  private at = 0

  constructor(private readonly text: string) {}

  document(): Element {
    if (this.text.startsWith("\uFEFF")) this.at = 1
    if (/^<\?xml[ \t\n]/.test(this.text.slice(this.at, this.at + 6))) this.past("?>")
    this.between()
    const root = this.element(undefined, 1)
    this.between()
    return this.at === this.text.length ? root : refuse("something behind the document's end")
  }

  private next(expected: string): boolean {
    return this.text.startsWith(expected, this.at)
  }

  private take(expected: string): void {
    if (!this.next(expected)) refuse(`no ${expected} at character ${this.at}`)
    this.at += expected.length
  }

  /** Goes behind the next `end`; what is before it. */
  private past(end: string): string {
    const from = this.at
    const to = this.text.indexOf(end, from)
    if (to < 0) refuse(`no ${end} behind character ${from}`)
    this.at = to + end.length
    return this.text.slice(from, to)
  }

  private skipSpace(): boolean {
    const from = this.at
    space.lastIndex = from
    space.test(this.text)
    this.at = space.lastIndex
    return this.at > from
  }

  private name(): string {
    name.lastIndex = this.at
    const [found] = name.exec(this.text) ?? refuse(`no name at character ${this.at}`)
    this.at += found.length
    return found
  }

  /** A comment or a processing instruction, if there is one here. */
  private remark(): boolean {
    if (this.next("<!--")) {
      this.at += 4
      this.past("--")
      this.take(">")
      return true
    }
    if (!this.next("<?")) return false
    this.at += 2
    if (this.name().toLowerCase() === "xml") refuse("a declaration that is not at the beginning")
    this.past("?>")
    return true
  }

  /** What may be outside of the document's element. */
  private between(): void {
    do this.skipSpace()
    while (this.remark())
  }

  private attribute(): readonly [string, string] {
    const attribute = this.name()
    this.skipSpace()
    this.take("=")
    this.skipSpace()
    const quote = this.next("'") ? "'" : '"'
    this.take(quote)
    const value = this.past(quote)
    if (value.includes("<")) refuse("a < in an attribute")
    return [attribute, resolve(value)]
  }

  /** The attributes of an element, and what its prefixes mean. */
  private attributes(outer: Namespaces | undefined): readonly [ReadonlyMap<string, string>, Namespaces | undefined] {
    let namespaces = outer
    let written: Map<string, string> | undefined
    while (this.skipSpace() && !this.next(">") && !this.next("/")) {
      const [attribute, value] = this.attribute()
      written ??= new Map()
      if (written.has(attribute)) refuse(`the attribute ${attribute} twice`)
      written.set(attribute, value)
      if (attribute === "xmlns") namespaces = { prefix: "", uri: value, outer: namespaces }
      else if (attribute.startsWith("xmlns:")) {
        namespaces = { prefix: attribute.slice(6), uri: value, outer: namespaces }
      }
    }
    return [written === undefined ? nothing : expanded(written, namespaces), namespaces]
  }

  private element(outer: Namespaces | undefined, depth: number): Element {
    if (depth > maxDepth) refuse(`elements inside of more than ${maxDepth} others`)
    this.take("<")
    const tag = this.name()
    const [attributes, namespaces] = this.attributes(outer)
    const colon = tag.indexOf(":")
    const itself = {
      namespace: namespaceOf(tag.slice(0, Math.max(0, colon)), namespaces),
      name: tag.slice(colon + 1),
      attributes
    }
    if (this.next("/>")) {
      this.at += 2
      return { ...itself, text: "", children: [] }
    }
    this.take(">")
    const children: Array<Element> = []
    let text = ""
    while (!this.next("</")) {
      if (this.next("<![CDATA[")) {
        this.at += 9
        text += this.past("]]>")
      } else if (this.next("<")) {
        if (!this.remark()) children.push(this.element(namespaces, depth + 1))
      } else text += this.characters()
    }
    this.at += 2
    this.take(tag)
    this.skipSpace()
    this.take(">")
    return { ...itself, text, children }
  }

  private characters(): string {
    const end = this.text.indexOf("<", this.at)
    if (end < 0) refuse("an element without its end")
    const written = this.text.slice(this.at, end)
    if (written.includes("]]>")) refuse("a ]]> outside of a CDATA section")
    this.at = end
    return resolve(written)
  }
}

/** Attributes by their names in full; declarations are none. One without a prefix is in no namespace. */
const expanded = (written: ReadonlyMap<string, string>, namespaces: Namespaces | undefined) => {
  const attributes = new Map<string, string>()
  for (const [attribute, value] of written) {
    if (attribute === "xmlns" || attribute.startsWith("xmlns:")) continue
    const colon = attribute.indexOf(":")
    const full =
      colon < 0 ? attribute : `{${namespaceOf(attribute.slice(0, colon), namespaces)}}${attribute.slice(colon + 1)}`
    if (attributes.has(full)) refuse(`the attribute ${attribute} twice`)
    attributes.set(full, value)
  }
  return attributes
}

/**
 * Reads one whole document, or says what is wrong with it. Well-formed is what XML 1.0 says, but for document types: there
 * are none here, so nothing can be declared that is more than it seems.
 */
export const parse = (text: string): Result.Result<Element, NotXml> =>
  Result.try({
    try: () => {
      if (unsayable.test(text)) refuse("a character that XML does not have")
      // Section 2.11: every line break is read as \n.
      return new Reader(text.includes("\r") ? text.replaceAll(/\r\n?/g, "\n") : text).document()
    },
    catch: (cause) => (cause instanceof NotXml ? cause : new NotXml({ reason: String(cause) }))
  })

/**
 * The texts of the children, by name, where each is there at most once and holds nothing but text; else undefined. White
 * space around them does not matter, as in all of XML Schema's simple types that we use.
 */
export const fields = (element: Element): Readonly<Record<string, string>> | undefined => {
  const found = new Map<string, string>()
  for (const { name, namespace, children, text } of element.children) {
    if (namespace !== element.namespace || children.length > 0 || found.has(name)) return undefined
    found.set(name, text.trim())
  }
  return Object.fromEntries(found)
}

/** What can be written: texts, elements by name, and nothing where there is nothing to say. */
export interface Fields {
  readonly [name: string]: string | Fields | undefined
}

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;"
}

/** A text as it stands in a document, in an element or an attribute. */
export const escaped = (text: string): string => {
  const said = sayable(text)
  return /[&<>"']/.test(said) ? said.replaceAll(/[&<>"']/g, (character) => escapes[character] ?? character) : said
}

/** Elements as they are written, one behind the other; `attributes` stand in each of them, ready to be written. */
export const written = (elements: Fields, attributes = ""): string => {
  let text = ""
  for (const [tag, value] of Object.entries(elements)) {
    if (value === undefined) continue
    const inside = typeof value === "string" ? escaped(value) : written(value)
    text += inside === "" ? `<${tag}${attributes}/>` : `<${tag}${attributes}>${inside}</${tag}>`
  }
  return text
}
