import { Effect, type Redacted } from "effect"
import { heldForNobody, lookInto, type StoredOrder, storedOrders } from "./Audit.ts"
import { type Answer, Client, text, tokenFor } from "./Client.ts"

/** A request, and the shop's last word on it; undefined when there was none and nobody asked again. */
interface Asked {
  readonly what: "place" | "pay" | "cancel" | "fulfil"
  readonly path: string
  readonly key?: string
  readonly body?: unknown
  answer: Answer | undefined
}

/** What one shopper did about one order. */
export interface Purchase {
  readonly userId: string
  /** Of the placement: its Idempotency-Key and its Correlation-Id. */
  readonly key: string
  readonly asked: Array<Asked>
}

export interface ShoppersOptions {
  readonly url: string
  readonly admin: string
  /** A token for each of the shoppers, by user id. */
  readonly tokens: ReadonlyMap<string, string>
  readonly products: ReadonlyArray<string>
}

/** How long somebody keeps asking a shop that is left in peace; far longer than a payment that was cut off has to wait. */
const patienceMs = 180_000

/** Purchases under way at most, of all shoppers together. */
const mostPurchases = 100

const unsettled = new Set(["request_in_progress", "payment_in_progress"])

const isFinal = (answer: Answer): boolean =>
  answer.status !== 503 && answer.status !== 429 && !unsettled.has(String(answer.body["code"]))

const pick = <A>(values: readonly [A, ...ReadonlyArray<A>]): A =>
  values[Math.floor(Math.random() * values.length)] ?? values[0]

const chance = (share: number) => Math.random() < share

/** People who shop until they are told to stop, and remember every answer. */
export class Shoppers {
  readonly purchases: Array<Purchase> = []
  /** What nobody should ever be told. */
  readonly surprises: Array<string> = []
  #stopped = false
  #inPeaceSince = Date.now()
  readonly #atWork: ReadonlyArray<Promise<void>>
  readonly #waiting = new Set<Promise<void>>()

  constructor(readonly options: ShoppersOptions) {
    this.#atWork = Array.from(options.tokens, ([userId, token]) => this.#shop(userId, new Client(options.url, token)))
  }

  /** What they did, in numbers. */
  get summary(): string {
    const asked = this.purchases.flatMap((purchase) => purchase.asked)
    const answered = asked.filter(({ answer }) => answer !== undefined)
    const done = answered.filter(({ answer }) => answer?.status === 200 || answer?.status === 201)
    return `${this.purchases.length} purchases, ${answered.length} answers (${done.length} yes), ${asked.length - answered.length} requests never repeated`
  }

  /** The shop is there again: each restart may have cut off the same payment, and patience begins anew. */
  shopIsBack(): void {
    this.#inPeaceSince = Date.now()
  }

  /** Everybody finishes what they are at. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#atWork)
    await Promise.all(this.#waiting)
  }

  async #shop(userId: string, client: Client) {
    const admin = client.as(this.options.admin)
    for (let nth = 1; !this.#stopped; nth++) {
      const purchase: Purchase = { userId, key: `${userId}-${nth}`, asked: [] }
      this.purchases.push(purchase)
      // While a payment that was cut off waits for its lease to end, one may as well buy something else.
      const delayed = Promise.withResolvers<void>()
      const bought = this.#buy(purchase, client, admin, delayed.resolve).catch((error: unknown) => {
        this.surprises.push(`${purchase.key}: ${String(error)}`)
      })
      this.#waiting.add(bought)
      void bought.finally(() => this.#waiting.delete(bought))
      await Promise.race([bought, this.#waiting.size < mostPurchases ? delayed.promise : bought])
    }
  }

  async #buy(purchase: Purchase, client: Client, admin: Client, onDelay: () => void) {
    const { key, asked } = purchase
    const ask = (
      what: Asked["what"],
      path: string,
      body: unknown,
      by = client,
      more: { key?: string; patient?: boolean } = {}
    ) => {
      const { patient = chance(0.85), ...keyed } = more
      const request: Asked = { what, path, body, ...keyed, answer: undefined }
      asked.push(request)
      return this.#askUntilTold(request, by, keyed.key ?? `${key}-${what}`, patient, onDelay)
    }

    const items = this.options.products
      .filter(() => chance(0.4))
      .concat(pick(["", ...this.options.products]))
      .filter((productId, index, all) => productId !== "" && all.indexOf(productId) === index)
      .map((productId) => ({ productId, qty: pick([1, 2, 3]) }))
    if (items.length === 0) return
    const place = () => ask("place", "/api/v1/orders", { items }, client, { key })
    const answers = await Promise.all(chance(0.05) ? [place(), place()] : [place()])
    const placed = answers.find((answer) => answer?.status === 201)
    if (placed === undefined) return
    const order = `/api/v1/orders/${text(placed, "orderId")}`

    const pay = (nth: number, paymentToken: string) =>
      ask("pay", `${order}/pay`, { paymentToken }, client, {
        key: `${key}-pay-${nth}`,
        // The gateway will be silent as often as it is asked.
        ...(paymentToken === "tok_timeout" ? { patient: false } : {})
      })
    const cancel = () => ask("cancel", `${order}/cancel`, undefined)

    const intent = Math.random()
    if (intent < 0.1) return
    if (intent < 0.25) return void (await cancel())
    if (intent < 0.35) return void (await Promise.all([pay(1, "tok_ok"), cancel()]))
    const first = await pay(
      1,
      pick(["tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_declined", "tok_lost", "tok_timeout"])
    )
    if (first?.status === 200) {
      if (chance(0.2)) await ask("fulfil", `${order}/fulfil`, undefined, admin)
      return
    }
    const next = Math.random()
    if (next < 0.5) await pay(2, "tok_ok")
    else if (next < 0.75) await cancel()
  }

  async #askUntilTold(
    request: Asked,
    client: Client,
    correlationId: string,
    patient: boolean,
    onDelay: () => void
  ): Promise<Answer | undefined> {
    const begun = Date.now()
    for (;;) {
      const answer = await client
        .post(request.path, request.body, {
          ...(request.key === undefined ? {} : { key: request.key }),
          headers: { "correlation-id": correlationId },
          signal: AbortSignal.timeout(20_000)
        })
        .catch(() => undefined)
      if (answer !== undefined && isFinal(answer)) {
        // A cancellation or fulfilment has no key: asked again, it is told that it is done already.
        if (!expected(request, answer)) {
          this.surprises.push(`${correlationId}: ${request.what} ${answer.status} ${JSON.stringify(answer.body)}`)
        }
        request.answer = answer
        await Bun.sleep(Math.random() * 15)
        return answer
      }
      if (!patient) return undefined
      if (Date.now() > Math.max(begun, this.#inPeaceSince) + patienceMs) {
        throw new Error(`no last word on ${request.what} in time: ${answer?.status} ${JSON.stringify(answer?.body)}`)
      }
      // The shop is there, and says that this takes time.
      if (answer !== undefined) onDelay()
      await Bun.sleep(100 + Math.random() * 200)
    }
  }

  /** What the database does not know of all that was answered, or knows otherwise; asked at any time, or at the end. */
  async contradictions(url: Redacted.Redacted, when: "meanwhile" | "at the end"): Promise<ReadonlyArray<string>> {
    // What was answered before the look begins has to be in it.
    const purchases = this.purchases.map(({ asked, ...purchase }) => ({
      ...purchase,
      asked: asked.map((request) => ({ ...request }))
    }))
    const answered = new Set(purchases.filter((purchase) => !isOpen(purchase)).map(({ key }) => key))
    const [stored, held] = await lookInto(url, Effect.all([storedOrders, heldForNobody]))
    const byKey = Map.groupBy(stored, ({ key }) => key)
    const byId = new Map(stored.map(({ order }) => [order.orderId, order]))
    const found = purchases.flatMap((purchase) => contradictionsOf(purchase, byKey.get(purchase.key) ?? [], byId, when))
    const keys = new Set(this.purchases.map(({ key }) => key))
    for (const { key, order } of stored) {
      const isOurs = this.options.tokens.has(order.userId)
      if (isOurs && !keys.has(key)) found.push(`nobody asked for ${order.orderId} (${key})`)
    }
    for (const { key, reservationId } of held) {
      if (answered.has(key) || byKey.has(key))
        found.push(`${reservationId} is held for nobody, though ${key} was answered`)
    }
    return found
  }

  /** Asks again what was answered under a key: the same answer has to come, and to say that it came before. */
  async replay(sample: number): Promise<ReadonlyArray<string>> {
    const keyed = this.purchases
      .flatMap(({ userId, asked }) => asked.map((request) => ({ userId, request })))
      .filter(({ request: { key, answer } }) => key !== undefined && answer !== undefined)
    const found: Array<string> = []
    for (const { userId, request } of keyed.filter(() => chance(sample / keyed.length))) {
      const client = new Client(this.options.url, this.options.tokens.get(userId))
      const again = await client.post(request.path, request.body, { key: request.key ?? "" })
      const same =
        again.status === request.answer?.status &&
        again.headers.get("idempotent-replayed") === "true" &&
        Bun.deepEquals({ ...again.body, traceId: "" }, { ...request.answer.body, traceId: "" })
      if (!same) {
        found.push(`${request.key}: first ${JSON.stringify(request.answer?.body)}, then ${JSON.stringify(again.body)}`)
      }
    }
    return found
  }
}

/** Whether an answer is one that this request may get. */
const expected = ({ what, body }: Asked, { status, body: { code } }: Answer): boolean => {
  switch (what) {
    case "place":
      return status === 201 || code === "out_of_stock"
    case "pay":
      return status === 200 || code === "not_payable" || (code === "payment_declined" && !isCharged(body))
    case "cancel":
      return status === 200 || code === "not_cancelable"
    case "fulfil":
      return status === 200 || code === "not_fulfillable"
  }
}

/** Whether this token, however it goes, can take money. */
const isCharged = (body: unknown): boolean =>
  JSON.stringify(body).includes("tok_ok") || JSON.stringify(body).includes("tok_lost")

const isOpen = ({ asked }: Purchase): boolean =>
  asked.some(({ what, answer }) => what === "place" && answer === undefined)

/** What an order can be, from what was said about it; meanwhile it may be ahead of what was answered so far. */
const possible = ({ asked }: Purchase, when: "meanwhile" | "at the end"): ReadonlySet<string> => {
  const said = (what: Asked["what"]) => asked.filter((request) => request.what === what)
  const unknown = (what: Asked["what"]) => said(what).some(({ answer }) => answer === undefined)
  const known = (status: string) =>
    asked.some(({ answer }) => answer?.body["status"] === status || answer?.body["orderStatus"] === status)
  if (known("FULFILLED")) return new Set(["FULFILLED"])
  if (known("PAID")) return new Set(["PAID", ...(unknown("fulfil") || when === "meanwhile" ? ["FULFILLED"] : [])])
  if (known("CANCELED")) return new Set(["CANCELED"])
  if (when === "meanwhile") return new Set(["PENDING", "PAID", "CANCELED", "FULFILLED"])
  return new Set([
    "PENDING",
    ...(unknown("cancel") ? ["CANCELED"] : []),
    ...(said("pay").some(({ answer, body }) => answer === undefined && isCharged(body)) ? ["PAID"] : [])
  ])
}

const contradictionsOf = (
  purchase: Purchase,
  made: ReadonlyArray<StoredOrder>,
  byId: ReadonlyMap<string, StoredOrder["order"]>,
  when: "meanwhile" | "at the end"
): ReadonlyArray<string> => {
  const { key, asked } = purchase
  const found: Array<string> = []
  if (made.length > 1) found.push(`${key} made ${made.length} orders`)
  const places = asked.filter(({ what }) => what === "place")
  if (made.length > 0 && places.some(({ answer }) => answer?.body["code"] === "out_of_stock")) {
    found.push(`${key} was refused and made an order`)
  }
  const statuses = possible(purchase, when)
  for (const { what, answer } of asked) {
    if (answer === undefined || answer.status >= 300) continue
    const { status, updatedAt, ...acknowledged } = answer.body
    const order = byId.get(text(answer, "orderId"))
    if (order === undefined) {
      found.push(`${key}: ${what} was acknowledged, and ${text(answer, "orderId")} is not there`)
      continue
    }
    const { status: now, updatedAt: changedAt, ...kept } = order
    if (made[0]?.order.orderId !== order.orderId)
      found.push(`${key}: was told of ${order.orderId}, which is another key's`)
    // A pending order changes when payments begin and fail; the other changes are told with the status.
    const changed = status === now && status !== "PENDING" && updatedAt !== changedAt
    if (changed || !Bun.deepEquals(acknowledged, kept)) {
      found.push(
        `${key}: ${what} was answered with ${JSON.stringify(answer.body)}, and stored is ${JSON.stringify(order)}`
      )
    }
    if (!statuses.has(now)) {
      found.push(`${key}: is ${now}, and can only be ${[...statuses].join(" or ")}: ${JSON.stringify(asked)}`)
    }
  }
  return found
}

/** A few products that never run out and one that does, with so many units of that. */
export const stockUp = async (admin: Client, scarceUnits = 100): Promise<ReadonlyArray<string>> => {
  const products: Array<string> = []
  for (const units of [1_000_000, 1_000_000, 1_000_000, 1_000_000, scarceUnits]) {
    const nth = products.length + 1
    const product = { sku: `SKU-${nth}`, name: `Product ${nth}`, category: "Test", price: nth + 0.19, currency: "USD" }
    const productId = text(await admin.post("/api/v1/products", product), "productId")
    await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
    products.push(productId)
  }
  return products
}

/** Lets so many people in, with tokens signed by the keys of a data folder. */
export const openFor = async (
  options: Omit<ShoppersOptions, "tokens"> & { readonly dataDir: string; readonly shoppers: number }
): Promise<Shoppers> => {
  const names = Array.from({ length: options.shoppers }, (_, nth) => `SHOPPER-${nth + 1}`)
  const tokens = await Promise.all(names.map((name) => tokenFor(options.dataDir, name, "shopper")))
  return new Shoppers({ ...options, tokens: new Map(names.map((name, nth) => [name, tokens[nth] ?? ""])) })
}
