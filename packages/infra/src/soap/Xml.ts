/** Small XML documents from people we do not trust: namespaces resolved, no document types, no entities but XML's own five. */
import { XMLParser, XMLValidator } from "fast-xml-parser"
import { Data, Predicate, Result } from "effect"

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

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: "",
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  processEntities: false,
  cdataPropName: "#cdata",
  ignoreDeclaration: true,
  ignorePiTags: true,
  maxNestedTags: maxDepth,
  // A name such as `toString` is kept as it is: names are only ever compared.
  onDangerousProperty: (name) => name
})

/** What the parser makes of an element, a text or a CDATA section: always an object, in an array of its siblings. */
interface Node {
  readonly [key: string]: unknown
}
const isNodes = (made: unknown): made is ReadonlyArray<Node> => Array.isArray(made)
/** Attributes are texts: the parser is told to make nothing else of them. */
const isAttributes = (made: unknown): made is Readonly<Record<string, string>> => Predicate.isObject(made)

const attributesKey = ":@"
const textKey = "#text"
const cdataKey = "#cdata"

const entities: ReadonlyMap<string, string> = new Map([
  ["lt", "<"],
  ["gt", ">"],
  ["amp", "&"],
  ["quot", '"'],
  ["apos", "'"]
])

/** All but the characters that XML 1.0 allows (production 2, "Char"). */
const unsayable = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu

/** The text with U+FFFD for what XML cannot say (lone surrogates among them), so that it can be read again. */
export const sayable = (text: string): string => text.replaceAll(unsayable, "\uFFFD")

const lastCodePoint = 0x10ffff

const resolve = (text: string): string =>
  text.replaceAll(/&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|(\w{1,16}));/g, (reference, hex, decimal, name) => {
    if (name !== undefined) {
      const character = entities.get(name)
      if (character === undefined) throw new NotXml({ reason: `an entity that is not XML's own: ${reference}` })
      return character
    }
    const code = hex === undefined ? Number.parseInt(decimal, 10) : Number.parseInt(hex, 16)
    const character = code > lastCodePoint ? "" : String.fromCodePoint(code)
    if (character === "" || sayable(character) !== character) {
      throw new NotXml({ reason: `a character that XML does not have: ${reference}` })
    }
    return character
  })

type Namespaces = ReadonlyMap<string, string>

const xml = "http://www.w3.org/XML/1998/namespace"

/** Splits `prefix:name`. Attributes without a prefix are in no namespace, elements in the default one. */
const qualified = (name: string, namespaces: Namespaces, isAttribute: boolean): readonly [string, string] => {
  const colon = name.indexOf(":")
  if (colon < 0) return [isAttribute ? "" : (namespaces.get("") ?? ""), name]
  const prefix = name.slice(0, colon)
  const namespace = prefix === "xml" ? xml : namespaces.get(prefix)
  if (namespace === undefined) throw new NotXml({ reason: `the prefix ${prefix} means nothing` })
  return [namespace, name.slice(colon + 1)]
}

const elementOf = (node: Node, outer: Namespaces): Element | undefined => {
  const tag = Object.keys(node).find((key) => key !== attributesKey)
  if (tag === undefined || tag === textKey || tag === cdataKey) return undefined
  const given = node[attributesKey]
  const written = isAttributes(given)
    ? Object.entries(given).map(([name, value]) => [name, resolve(value)] as const)
    : []
  const declared = written.flatMap(
    ([name, uri]): ReadonlyArray<readonly [string, string]> =>
      name === "xmlns" ? [["", uri]] : name.startsWith("xmlns:") ? [[name.slice(6), uri]] : []
  )
  const namespaces = declared.length === 0 ? outer : new Map([...outer, ...declared])
  const attributes = written
    .filter(([name]) => name !== "xmlns" && !name.startsWith("xmlns:"))
    .map(([name, value]) => {
      const [namespace, local] = qualified(name, namespaces, true)
      return [namespace === "" ? local : `{${namespace}}${local}`, value] as const
    })
  const [namespace, name] = qualified(tag, namespaces, false)
  const content = node[tag]
  const inside = isNodes(content) ? content : []
  return {
    namespace,
    name,
    attributes: new Map(attributes),
    text: inside.map(textOf).join(""),
    children: inside.flatMap((child) => elementOf(child, namespaces) ?? [])
  }
}

const textOf = (node: Node): string => {
  const text = node[textKey]
  if (typeof text === "string") return resolve(text)
  const cdata = node[cdataKey]
  return isNodes(cdata) ? cdata.map((part) => String(part[textKey] ?? "")).join("") : ""
}

const notXml = (cause: unknown) =>
  cause instanceof NotXml ? cause : new NotXml({ reason: cause instanceof Error ? cause.message : String(cause) })

/** Reads one whole document, or says what is wrong with it. */
export const parse = (text: string): Result.Result<Element, NotXml> =>
  Result.try({
    try: () => {
      // Only a document type begins so; comments and CDATA sections do not.
      if (/<!(?!--|\[CDATA\[)/.test(text)) throw new NotXml({ reason: "a document type, which is not allowed" })
      const validity = XMLValidator.validate(text)
      if (validity !== true) throw new NotXml({ reason: validity.err.msg })
      const nodes: unknown = parser.parse(text)
      const roots = isNodes(nodes) ? nodes.flatMap((node) => elementOf(node, new Map()) ?? []) : []
      const [root] = roots
      if (root === undefined || roots.length > 1 || !text.trimEnd().endsWith(">")) {
        throw new NotXml({ reason: "not one document" })
      }
      return root
    },
    catch: notXml
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
