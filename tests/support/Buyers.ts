import { type Answer, type Client, text } from "./Client.ts"
import type { PayingShop } from "./PayingShop.ts"

/** Somebody's wish to pay: asked for under one key until it is settled. */
interface Payment {
  readonly ask: () => Promise<Answer>
}

export interface Bought {
  /** How often somebody was told to come back, over all payments. */
  readonly toldToWait: number
}

/** How long all of them together keep asking after everybody has asked once, in milliseconds. */
const patienceMs = 150_000

/** A generator of numbers from 0 to 1 that are the same for the same seed (mulberry32). */
export const seeded = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const inParallel = async <A>(atOnce: number, all: ReadonlyArray<A>, work: (each: A) => Promise<void>) => {
  const queue = all.values()
  const worker = async () => {
    for (const each of queue) await work(each)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

const isPaid = ({ body, status }: Answer) => (status === 200 || status === 201) && body["status"] === "PAID"

/** Nobody knows yet, or nobody could take the money: to be asked again. */
const isOpen = ({ body, status }: Answer) =>
  status === 503 || body["code"] === "request_in_progress" || body["code"] === "payment_in_progress"

/** People who buy, so many at once, by paying an order that they placed or by checking out a cart. */
export class Buyers {
  private nth = 0
  private readonly chance

  private constructor(
    private readonly people: ReadonlyArray<Client>,
    private readonly products: ReadonlyArray<string>,
    private readonly atOnce: number,
    seed: number
  ) {
    this.chance = seeded(seed)
  }

  static async arrive(shop: PayingShop, products: ReadonlyArray<string>, atOnce: number, seed: number) {
    const people = await Promise.all(Array.from({ length: atOnce }, (_, nth) => shop.as(`BUYER-${nth + 1}`)))
    return new Buyers(people, products, atOnce, seed)
  }

  private pick<A>(values: ReadonlyArray<A>): A {
    const value = values[Math.floor(this.chance() * values.length)]
    if (value === undefined) throw new Error("nothing to pick from")
    return value
  }

  /** Chosen before anybody is asked, so that the same seed buys the same. */
  private wish() {
    const nth = ++this.nth
    return {
      key: `BUY-${nth}`,
      client: this.pick(this.people),
      productId: this.pick(this.products),
      qty: this.pick([1, 2, 3, 7]),
      checkout: this.chance() < 0.5
    }
  }

  private async begin({ checkout, client, key, productId, qty }: ReturnType<Buyers["wish"]>): Promise<Payment> {
    const expecting = (status: number, answer: Answer) => {
      if (answer.status !== status) throw new Error(`${key}: ${answer.status} ${JSON.stringify(answer.body)}`)
      return answer
    }
    if (checkout) {
      const cartId = text(expecting(201, await client.post("/api/v1/carts")), "cartId")
      const item = `/api/v1/carts/${cartId}/items/${productId}`
      expecting(200, await client.request("PUT", item, { body: { qty } }))
      return { ask: () => client.post("/api/v1/checkout", { cartId, paymentToken: "tok_ok" }, { key }) }
    }
    const placed = expecting(201, await client.post("/api/v1/orders", { items: [{ productId, qty }] }, { key }))
    const path = `/api/v1/orders/${text(placed, "orderId")}/pay`
    return { ask: () => client.post(path, { paymentToken: "tok_ok" }, { key }) }
  }

  /** Makes so many payments, and asks again for those that are not settled until every one is. */
  async buy(count: number): Promise<Bought> {
    let toldToWait = 0
    let open: Array<Payment> = []
    const settle = async (payment: Payment) => {
      const answer = await payment.ask()
      if (isPaid(answer)) return
      if (!isOpen(answer)) throw new Error(`not to be: ${answer.status} ${JSON.stringify(answer.body)}`)
      toldToWait += 1
      open.push(payment)
    }
    const wishes = Array.from({ length: count }, () => this.wish())
    await inParallel(this.atOnce, wishes, async (wish) => settle(await this.begin(wish)))
    const deadline = Date.now() + patienceMs
    while (open.length > 0) {
      if (Date.now() > deadline) throw new Error(`${open.length} of ${count} payments are not settled in time`)
      await Bun.sleep(300)
      const again = open
      open = []
      await inParallel(this.atOnce, again, settle)
    }
    return { toldToWait }
  }
}
