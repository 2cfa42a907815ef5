import { expect, test } from "bun:test"
import { restShop } from "./support/RestShop.ts"
const shop = restShop()
test("smoke", async () => {
  const p = await shop().product({ name: "Oat milk" })
  const ask = async (client: any, query: string, headers = {}) => {
    const r = await client.post("/graphql", { query }, { headers })
    console.log(r.status, JSON.stringify(r.body))
    return r
  }
  let t = performance.now()
  await ask(shop().anyone, `{ product(id: "${p}") { id name price flashSale { id } inventory { available } } }`)
  console.log("first", performance.now() - t)
  t = performance.now()
  await ask(shop().anyone, `{ product(id: "${p}") { id name price inventory { available } } }`)
  console.log("second", performance.now() - t)
  await ask(
    shop().anyone,
    `{ products(filter: {limit: 2}) { id name inventory { available } } productInventory(id: "${p}") { productId onHand } }`
  )
  await ask(
    shop().anyone,
    `{ a: product(id: "P-none") { id } b: product(id: "oh no!") { id } order(id: "ORDER-1") { id } cart(id: "C") { id } }`
  )
  await ask(shop().anyone, `{ product(id: "x") { nam } }`)
  await ask(shop().anyone, `{ product(id: "x") {`)
  await ask(shop().anyone, `{ products(filter: {limit: 1000}) { id } }`)
  await ask(shop().anyone, `mutation { __typename }`)
  await ask(
    await shop().as("U1", "shopper"),
    `{ orders { items { id items { product { name inventory { available } } } } nextCursor } order(id: "ORDER-1") { id } }`
  )
  await ask(shop().anyone, `{ __schema { queryType { name } } }`)
}, 60000)
