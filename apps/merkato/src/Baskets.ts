/** A file of shopping baskets, and what follows from the names in it alone: the same file always means the same shop. */
import { maxLines } from "@merkato/domain/pricing/Quote"

export interface Basket {
  /** Its line in the file, from 1. */
  readonly line: number
  /** Each thing once, in the order of the file. */
  readonly items: ReadonlyArray<{ readonly name: string; readonly qty: number }>
}

const maxQty = 99

/** One basket a line, its items separated by commas; white space around names, empty names and empty lines do not count. */
export const parse = (text: string): ReadonlyArray<Basket> =>
  text
    .replace(/^\uFEFF/, "")
    .split("\n")
    .flatMap((row, index) => {
      const units = new Map<string, number>()
      for (const name of row.split(",").map((part) => part.trim())) {
        if (name !== "") units.set(name, (units.get(name) ?? 0) + 1)
      }
      return units.size === 0 ? [] : [{ line: index + 1, items: Array.from(units, ([name, qty]) => ({ name, qty })) }]
    })

/** Why no order can be made of a basket; undefined when one can. */
export const refusalOf = ({ line, items }: Basket): string | undefined => {
  if (items.length > maxLines) {
    return `Line ${line} has ${items.length} different items, and an order holds at most ${maxLines}.`
  }
  const many = items.find(({ qty }) => qty > maxQty)
  if (many !== undefined)
    return `Line ${line} has ${many.name} ${many.qty} times, and an order takes at most ${maxQty}.`
  const odd = items.find(({ name }) => name.length > 200 || !name.isWellFormed() || name.includes("\u0000"))
  return odd === undefined ? undefined : `Line ${line} has an item whose name is no text of at most 200 characters.`
}

/** Units of each item over all baskets, by name, in the order of first appearance. */
export const unitsOf = (baskets: ReadonlyArray<Basket>): ReadonlyMap<string, number> => {
  const units = new Map<string, number>()
  for (const { items } of baskets) {
    for (const { name, qty } of items) units.set(name, (units.get(name) ?? 0) + qty)
  }
  return units
}

/** FNV-1a over UTF-16 code units, 32 bits. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  return value >>> 0
}

const maxSku = 64

/** `whole milk` is WHOLE-MILK. What is too long, or has no letter or digit of ASCII, ends in a hash of the name. */
export const skuOf = (name: string): string => {
  const slug = name
    .normalize("NFKD")
    .replace(/\p{Mark}/gu, "")
    .replace(/[^A-Za-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .toUpperCase()
  return slug !== "" && slug.length <= maxSku ? slug : withHash(slug === "" ? "ITEM" : slug, name)
}

const withHash = (slug: string, name: string): string =>
  `${slug.slice(0, maxSku - 9)}-${hash(name).toString(16).padStart(8, "0").toUpperCase()}`

/** The SKU of each name; names that would share one all end in their hash. */
export const skusOf = (names: ReadonlyArray<string>): ReadonlyMap<string, string> => {
  const claims = new Map<string, number>()
  for (const name of names) claims.set(skuOf(name), (claims.get(skuOf(name)) ?? 0) + 1)
  return new Map(
    names.map((name) => {
      const sku = skuOf(name)
      return [name, claims.get(sku) === 1 ? sku : withHash(sku, name)]
    })
  )
}

const cheapestMinor = 49
const dearestMinor = 999

/** A price in US dollars from 0.49 to 9.99, as it goes over the wire. */
export const priceOf = (name: string): number =>
  (cheapestMinor + (hash(name) % (dearestMinor - cheapestMinor + 1))) / 100
