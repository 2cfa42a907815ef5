// What shoppers are promised, in their words (tests/features), held against a running shop.
import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { type Answer, type Client, text } from "./support/Client.ts"
import { scenariosIn, Steps, type Table } from "./support/Gherkin.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const shop = restShop()

interface Person {
  readonly client: Client
  readonly cartId: string
  last?: Answer
}

/** What a scenario knows: people and products by the names it gives them, which the shop has never heard before. */
interface World {
  readonly people: Map<string, Person>
  readonly products: Map<string, string>
  guest?: Person & { readonly token: string }
}

const steps = new Steps<World>()

const productOf = ({ products }: World, name: string): string => {
  const productId = products.get(name)
  if (productId === undefined) throw new Error(`the shop sells no ${name}`)
  return productId
}

const personOf = async ({ people }: World, name: string): Promise<Person> => {
  const known = people.get(name)
  if (known !== undefined) return known
  const client = await shop().as(`${name}-${crypto.randomUUID()}`)
  const person = { client, cartId: text(await client.post("/api/v1/carts"), "cartId") }
  people.set(name, person)
  return person
}

const answered = (answer: Answer, status: number) => {
  expect([answer.status, answer.body]).toEqual([status, expect.anything()])
  return answer
}

const lastOf = ({ last }: Person): Answer => {
  if (last === undefined) throw new Error("nothing was asked yet")
  return last
}

const put = async (world: World, { client, cartId }: Person, qty: number, product: string) =>
  answered(
    await client.request("PUT", `/api/v1/carts/${cartId}/items/${productOf(world, product)}`, { body: { qty } }),
    200
  )

/** What is in a cart, by the names of the scenario. */
const inCart = async (world: World, { client, cartId }: Person): Promise<Readonly<Record<string, unknown>>> => {
  const { items } = answered(await client.get(`/api/v1/carts/${cartId}`), 200).body
  return named(world, items)
}

const named = ({ products }: World, items: unknown): Readonly<Record<string, unknown>> => {
  const names = new Map([...products].map(([name, productId]) => [productId, name]))
  return Object.fromEntries(
    (Array.isArray(items) ? items : []).map(({ productId, qty }) => [names.get(productId) ?? productId, qty])
  )
}

const checkOut = async (person: Person, fields: Readonly<Record<string, unknown>> = {}, key = crypto.randomUUID()) => {
  const body = { cartId: person.cartId, paymentToken: "tok_ok", ...fields }
  person.last = await person.client.post("/api/v1/checkout", body, { key })
}

const ordersOf = async ({ client }: Person): Promise<ReadonlyArray<unknown>> => {
  const { items } = answered(await client.get("/api/v1/orders"), 200).body
  return Array.isArray(items) ? items : []
}

const hasBought = async (world: World, name: string, bought: Readonly<Record<string, number>>, total: number) => {
  const { status, body } = lastOf(await personOf(world, name))
  const { status: is, totalAmount, currency, items } = body
  expect({ status, is, totalAmount, currency, items: named(world, items) }).toEqual({
    status: 201,
    is: "PAID",
    totalAmount: total,
    currency: "USD",
    items: bought
  })
}

const areLeft = async (world: World, units: number, product: string) => {
  const path = `/api/v1/inventory/${productOf(world, product)}`
  // What a declined card had set aside comes back a moment later.
  await until(
    async () => (await shop().anyone.get(path)).body["available"],
    (available) => available === units
  )
}

steps.define("the shop sells", async ({ products }: World, shelf: Table) => {
  for (const { product = "", price, "on the shelf": units } of shelf) {
    products.set(product, await shop().product({ name: product, price: Number(price) }, Number(units)))
  }
})
for (const owner of ["her", "his"]) {
  steps.define(
    `{word} has put {int} {word} into ${owner} cart`,
    async (world, name: string, qty: number, product: string) => put(world, await personOf(world, name), qty, product)
  )
}
steps.define("{word} has taken the {word} out again", async (world, name: string, product: string) => {
  const { client, cartId } = await personOf(world, name)
  answered(await client.request("DELETE", `/api/v1/carts/${cartId}/items/${productOf(world, product)}`), 200)
})
steps.define("a guest has put {int} {word} into a cart", async (world, qty: number, product: string) => {
  const cart = answered(await shop().anyone.post("/api/v1/carts"), 201)
  const token = text(cart, "guestToken")
  world.guest = { client: shop().anyone.as(token), cartId: text(cart, "cartId"), token }
  await put(world, world.guest, qty, product)
})
steps.define("{word} signs in and takes the guest's cart over", async (world, name: string) => {
  const { client, cartId } = await personOf(world, name)
  answered(await client.post(`/api/v1/carts/${cartId}/merge`, { guestToken: world.guest?.token }), 200)
})
steps.define("{word} become(s) dearer: {float} USD", async (world, product: string, price: number) => {
  const admin = await shop().as("ADMIN", "admin")
  const body = { price, currency: "USD", reason: "harvest" }
  answered(await admin.request("PUT", `/api/v1/products/${productOf(world, product)}/price`, { body }), 200)
})

steps.define("{word} checks out", async (world, name: string) => checkOut(await personOf(world, name)))
steps.define("{word} checks out, and the same again because nothing seemed to happen", async (world, name: string) => {
  const [person, key] = [await personOf(world, name), crypto.randomUUID()]
  await checkOut(person, {}, key)
  const first = lastOf(person)
  await checkOut(person, {}, key)
  expect(lastOf(person).body).toEqual(first.body)
})
steps.define("{word} checks out with a card that her bank declines", async (world, name: string) =>
  checkOut(await personOf(world, name), { paymentToken: "tok_declined" })
)
steps.define("{word} checks out, having seen {float} USD", async (world, name: string, expectedTotal: number) =>
  checkOut(await personOf(world, name), { expectedTotal })
)
steps.define("{word} checks out {word}'s cart", async (world, name: string, other: string) =>
  checkOut(await personOf(world, name), { cartId: (await personOf(world, other)).cartId })
)

steps.define(
  "{word} has bought {int} {word} for {float} USD",
  (world, name: string, qty: number, product: string, total: number) =>
    hasBought(world, name, { [product]: qty }, total)
)
steps.define(
  "{word} has bought {int} {word} and {int} {word} for {float} USD",
  (world, name: string, qty: number, product: string, more: number, other: string, total: number) =>
    hasBought(world, name, { [product]: qty, [other]: more }, total)
)
steps.define("{word}'s cart is empty", async (world, name: string) => {
  const person = await personOf(world, name)
  await until(
    () => inCart(world, person),
    (items) => Bun.deepEquals(items, {})
  )
})
steps.define("{word}'s cart still has {int} {word}", async (world, name: string, qty: number, product: string) =>
  expect(await inCart(world, await personOf(world, name))).toEqual({ [product]: qty })
)
steps.define("there are {int} {word} left", areLeft)
steps.define(
  "there are {int} {word} and {int} {word} left",
  async (world, units: number, product: string, more: number, other: string) => {
    await areLeft(world, units, product)
    await areLeft(world, more, other)
  }
)
steps.define("{word} has {int} order(s)", async (world, name: string, count: number) =>
  expect(await ordersOf(await personOf(world, name))).toHaveLength(count)
)
steps.define("{word} gets the notice that her order is paid", async (world, name: string) => {
  const person = await personOf(world, name)
  const about = { orderId: text(lastOf(person), "orderId"), kind: "order.paid" }
  await until(
    async () => (await person.client.get("/api/v1/notifications")).body["items"],
    (items) => Array.isArray(items) && items.some((each) => Bun.deepEquals({ ...each, ...about }, each))
  )
})
for (const [words, status, code] of [
  ["the card was declined", 402, "payment_declined"],
  ["there is not enough left", 409, "out_of_stock"],
  ["the price has changed", 409, "price_changed"],
  ["the cart is empty", 409, "cart_empty"],
  ["there is no such cart", 422, "cart_not_found"]
] as const) {
  steps.define(`{word} is told that ${words}`, async (world, name: string) => {
    const { body, ...answer } = lastOf(await personOf(world, name))
    expect([answer.status, body["code"]]).toEqual([status, code])
  })
}
steps.define("{word} cannot see {word}'s order", async (world, name: string, other: string) => {
  const orderId = text(lastOf(await personOf(world, other)), "orderId")
  const { client } = await personOf(world, name)
  answered(await client.get(`/api/v1/orders/${orderId}`), 404)
})

describe("checkout", () => {
  for (const [nth, scenario] of scenariosIn(join(import.meta.dir, "features/checkout.feature")).entries()) {
    test(`${nth + 1}. ${scenario.name}`, () => steps.run({ people: new Map(), products: new Map() }, scenario))
  }

  test("every sentence that means something is said", () => {
    expect(steps.unused).toEqual([])
  })
})
