// What the shop of a bench sells, and is searched for.

/** Products on the shelf, a million units of each. */
const products = 1_000

const kinds = ["Organic", "Fresh", "Smoked", "Dried", "Frozen", "Ripe", "Salted", "Sweet", "Wild", "Ground"] as const

/** What is for sale: each in a category of its own, in every kind, four times. Searches are for one of these. */
export const goods = (
  "apple bread butter carrot cheese cherry coffee cucumber flour garlic honey lemon lentils milk mustard noodles olives " +
  "onion pepper potato rice salmon spinach tea tomato"
).split(" ")
const goodOf = (n: number): string => goods[n % goods.length] ?? ""
const nameOf = (n: number) => `${kinds[Math.floor(n / goods.length) % kinds.length]} ${goodOf(n)}`

/** The category that a good is in. */
export const categoryOf = (good: string): string => `Bench ${good}`

/** Puts products on the shelf of the shop at this port, with stock; their ids. */
export const fill = async (port: number, admin: string) => {
  // A shop that is kept has the goods of earlier runs.
  const tag = crypto.randomUUID().slice(0, 8)
  const ids: Array<string> = []
  const post = async (path: string, body: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
    return Object.fromEntries(Object.entries(Object(await answer.json())))
  }
  const one = async (n: number) => {
    const product = await post("/api/v1/products", {
      sku: `BENCH-${tag}-${n}`,
      name: nameOf(n),
      description: "x".repeat(200),
      category: categoryOf(goodOf(n)),
      price: 10 + (n % 90),
      currency: "USD"
    })
    const id = String(product["productId"])
    await post(`/api/v1/inventory/${id}/adjustments`, { delta: 1_000_000, reason: "bench" })
    ids.push(id)
  }
  for (let n = 0; n < products; n += 20) await Promise.all(Array.from({ length: 20 }, (_, k) => one(n + k)))
  return ids
}
