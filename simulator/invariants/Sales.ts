import { Effect } from "effect"
import * as PricingEvents from "@merkato/domain/pricing/PricingEvents"
import * as Projection from "@merkato/infra/projection/Projection"
import { flashSalePriceMap } from "@merkato/services/pricing/FlashPriceMap"
import { type Evidence, type Invariant, none, objects } from "./Invariant.ts"
import { heldBetween, type Sale, salesOf, shelfPricesOf } from "./SaleTimes.ts"

const { FlashSaleCanceled, FlashSaleEnded, FlashSaleScheduled, FlashSaleStarted } = PricingEvents

const letterOf = ({ type }: { readonly type: string }, letter: string) => `when '${type}' then ${letter}`

type Row = Readonly<Record<string, unknown>>

const columns = Object.keys(Projection.columnsOf(flashSalePriceMap)).toSorted()

/** The rows of the price map, each in a form that can be compared. */
const shown = (rows: ReadonlyArray<Row>) =>
  new Map(rows.map((row) => [String(row["sale_id"]), JSON.stringify(columns.map((column) => row[column]))]))

const differences = (what: string, told: ReadonlyMap<string, string>, are: ReadonlyMap<string, string>) =>
  [...new Set([...told.keys(), ...are.keys()])].flatMap((saleId) =>
    told.get(saleId) === are.get(saleId)
      ? []
      : [`${saleId} is ${are.get(saleId) ?? "not there"}; ${what} tell ${told.get(saleId) ?? "nothing of it"}`]
  )

const windowsMeet = (left: Pick<Sale, "startsAt" | "endsAt">, right: Pick<Sale, "startsAt" | "endsAt">) =>
  left.startsAt < right.endsAt && right.startsAt < left.endsAt

const minorOf = (minors: Iterable<number>) => [...new Set(minors)].toSorted((left, right) => left - right).join(", ")

/** What is wrong with the prices of the orders that shoppers were told. */
const wrongPrices = async (evidence: Evidence) => {
  const sales = await salesOf(evidence)
  const shelf = await shelfPricesOf(evidence)
  return evidence.memory.prices.flatMap(({ order, askedAt, answeredAt }) =>
    order.items.flatMap(({ productId, priceMinor }) => {
      const usual = shelf
        .filter((price) => price.productId === productId && price.from <= answeredAt && askedAt <= price.until)
        .map((price) => price.priceMinor)
      const held = sales
        .filter((sale) => sale.productId === productId)
        .map((sale) => ({ sale, ...heldBetween(evidence, sale, askedAt, answeredAt) }))
      const cheaper = held.filter(({ maybe }) => maybe).map(({ sale }) => sale.priceMinor)
      const certain = held.find(({ certainly }) => certainly)?.sale
      const right = usual.some(
        (minor) =>
          cheaper.some((sale) => Math.min(sale, minor) === priceMinor) ||
          (certain === undefined && minor === priceMinor)
      )
      if (right) return []
      const during = `asked for at ${askedAt} and told at ${answeredAt}`
      const on = certain === undefined ? "" : `, and ${certain.saleId} was on`
      return [
        `${order.orderId}, ${during}: ${productId} for ${priceMinor}; on the shelf for ${minorOf(usual)}, in sales for ${minorOf(cheaper) || "nothing"}${on}`
      ]
    })
  )
}

/** A flash sale is there once, its price holds when it should, and what it comes to is told once. */
export const sales: ReadonlyArray<Invariant> = [
  none("every flash sale has started and ended", `select sale_id from pricing.flash_sales where end_told_at is null`),
  none(
    "one key is one flash sale, and each is of a key",
    `with answered as (
       select answer -> 'value' ->> 'saleId' as sale_id, count(*) as times from pricing.idempotency
       where operation = 'flash_sale' and answer ->> '_tag' = 'Done' group by 1
     )
     select sale_id, times from pricing.flash_sales s full join answered using (sale_id)
     where times is distinct from 1 or s.sale_id is null`
  ),
  {
    name: "an acknowledged flash sale is there as it was acknowledged",
    broken: async (evidence) => {
      const rows = new Map((await salesOf(evidence)).map((sale) => [sale.saleId, sale]))
      return evidence.memory.sales.flatMap(({ saleId, productId, priceMinor, startsAt, endsAt }) => {
        const is = rows.get(saleId)
        const right =
          is?.productId === productId &&
          is.priceMinor === priceMinor &&
          is.startsAt === startsAt &&
          is.endsAt === endsAt
        return right ? [] : [`${saleId} of ${productId} for ${priceMinor} is ${JSON.stringify(is) ?? "missing"}`]
      })
    }
  },
  {
    name: "flash sales of a product that stand at the same time never overlap",
    broken: async (evidence) => {
      const all = await salesOf(evidence)
      return all.flatMap((left, index) =>
        all.slice(index + 1).flatMap((right) => {
          if (left.productId !== right.productId || !windowsMeet(left, right)) return []
          const from = Math.max(left.madeBy, right.madeBy)
          const until = Math.min(left.goneFrom, right.goneFrom)
          return from < until ? [`${left.saleId} and ${right.saleId}, from ${from} to ${until} for certain`] : []
        })
      )
    }
  },
  {
    name: "a flash sale is refused because of another only where that one may stand in the way",
    broken: async (evidence) => {
      const all = new Map((await salesOf(evidence)).map((sale) => [sale.saleId, sale]))
      return evidence.memory.overlappingSales.flatMap((asked) => {
        const other = all.get(asked.otherId)
        if (other !== undefined && other.productId === asked.productId && windowsMeet(other, asked)) {
          // Asked in the millisecond in which the other ended: nobody knows here which was first.
          if (asked.askedAt <= other.goneBy) return []
        }
        return [
          `${asked.productId} from ${asked.startsAt} to ${asked.endsAt}: ${JSON.stringify(other) ?? asked.otherId}`
        ]
      })
    }
  },
  {
    name: "a flash sale whose cancellation was acknowledged before its end is canceled",
    broken: async (evidence) => {
      const all = new Map((await salesOf(evidence)).map((sale) => [sale.saleId, sale]))
      return evidence.memory.saleCancels.flatMap(({ saleId, answeredAt }) => {
        const sale = all.get(saleId)
        if (answeredAt === undefined || sale === undefined) return []
        return sale.canceled || answeredAt >= sale.overFrom ? [] : [`${saleId}, acknowledged at ${answeredAt}`]
      })
    }
  },
  { name: "what was ordered cost what it may have cost when it was", broken: wrongPrices },
  none(
    "a flash sale's events are what became of it, each once and none too early",
    `with told as (
       select aggregate_id as sale_id, max(e.version) as version, string_agg(case event_type
         ${letterOf(FlashSaleScheduled, "'N'")} ${letterOf(FlashSaleStarted, "'S'")} ${letterOf(FlashSaleCanceled, "'X'")}
         ${letterOf(FlashSaleEnded, "case payload ->> 'reason' when 'over' then 'E' else 'C' end")}
         else '?' end, '' order by e.version) as line,
         bool_or(event_type = '${FlashSaleStarted.type}' and occurred_at < s.starts_at
           or coalesce(payload ->> 'reason' = 'over', false) and occurred_at < s.ends_at) as early
       from pricing.events e left join pricing.flash_sales s on s.sale_id = aggregate_id group by aggregate_id
     )
     select sale_id, s.version, s.canceled_at, told.version, line, early from pricing.flash_sales s full join told using (sale_id)
     where s.version is distinct from told.version or early is distinct from false or length(line) <> told.version
       or line !~ case when s.canceled_at is null then '^NSE$' else '^N(X|SC)$' end`
  ),
  none(
    "the price map has the windows of the flash sales that are not over, and no other",
    `select sale_id, s.product_id, p.product_id from (select * from pricing.flash_sales where end_told_at is null) s
     full join pricing.flash_prices p using (sale_id)
     where (s.product_id, s.starts_at, s.ends_at, s.price_minor, s.currency)
       is distinct from (p.product_id, p.starts_at, p.ends_at, p.price_minor, p.currency)`
  ),
  {
    name: "the price map is what the events of flash sales tell, replayed or as they came off the bus",
    broken: async (evidence) => {
      const rows = await objects<Row>(evidence, "select * from pricing.flash_sale_price_map")
      const are = shown(
        rows.map((row) => ({
          ...row,
          starts_at: new Date(String(row["starts_at"])).toISOString(),
          ends_at: new Date(String(row["ends_at"])).toISOString()
        }))
      )
      const stored = await objects<Projection.ProjectedEvent>(
        evidence,
        `select event_id as "eventId", event_type as "eventType", occurred_at as "occurredAt", region,
           aggregate_id as "partitionKey", version as "aggregateVersion", payload from pricing.events order by position`
      )
      const published = [...evidence.bus.partitions].flatMap(([name, entries]) =>
        name.startsWith(`${flashSalePriceMap.topic}/`) ? entries.map(({ envelope }) => envelope) : []
      )
      const told = (events: ReadonlyArray<Projection.ProjectedEvent>) =>
        shown(Effect.runSync(Projection.rowsOf(flashSalePriceMap, events)))
      return [...differences("its stored events", told(stored), are), ...differences("the bus", told(published), are)]
    }
  }
]
