/** From when to when a price may have held, and did for certain: by what was asked, answered and published, and by the clocks. */
import { type Evidence, objects } from "./Invariant.ts"

/** All times are milliseconds of virtual time, which no process has to know exactly. */
export interface Sale {
  readonly saleId: string
  readonly productId: string
  readonly priceMinor: number
  readonly startsAt: number
  readonly endsAt: number
  readonly canceled: boolean
  /** It is in the tables at the earliest then, and at the latest. */
  readonly madeFrom: number
  readonly madeBy: number
  /** Nobody ends it before, be it by a clock that is ahead; Infinity when nobody can have. */
  readonly overFrom: number
  /** Nobody ends or cancels it before. */
  readonly goneFrom: number
  /** It prices nothing any more after that: its end was published, or somebody was told that it is canceled. */
  readonly goneBy: number
}

/** A price on the shelf, and between which times it may have been there. */
export interface ShelfPrice {
  readonly productId: string
  readonly priceMinor: number
  readonly from: number
  readonly until: number
}

const earliest = (times: Iterable<number>): number => Math.min(Infinity, ...times)

/** When the bus first took each event, by the aggregate and its version. */
const publishedAt = ({ bus }: Evidence, topic: string) => {
  const times = new Map<string, number>()
  for (const [name, entries] of bus.partitions) {
    if (!name.startsWith(`${topic}/`)) continue
    for (const { envelope, publishedAt: at } of entries) {
      const event = `${envelope.partitionKey} ${envelope.aggregateVersion}`
      times.set(event, Math.min(at, times.get(event) ?? Infinity))
    }
  }
  return (aggregateId: string, version: number) => times.get(`${aggregateId} ${version}`) ?? Infinity
}

/** When a clock of whoever prices first showed a time, not before a moment. */
export const firstShown = (
  { pricingClocks }: Pick<Evidence, "pricingClocks">,
  time: number,
  notBefore: number
): number =>
  earliest(
    pricingClocks.flatMap(({ from, to, skewMs }) => {
      const at = Math.max(from, notBefore, time - skewMs)
      return at <= to ? [at] : []
    })
  )

interface SaleRow {
  readonly sale_id: string
  readonly product_id: string
  readonly price_minor: number
  readonly starts_ms: number
  readonly ends_ms: number
  readonly canceled: boolean
  readonly version: number
  readonly caller: string | null
  readonly key: string | null
}

/** Every sale that there is, whoever was told of it. */
export const salesOf = async (evidence: Evidence): Promise<ReadonlyArray<Sale>> => {
  const { memory } = evidence
  const published = publishedAt(evidence, "promo.events")
  const rows = await objects<SaleRow>(
    evidence,
    `select s.sale_id, s.product_id, s.price_minor, (extract(epoch from s.starts_at) * 1000)::bigint as starts_ms,
       (extract(epoch from s.ends_at) * 1000)::bigint as ends_ms, s.canceled_at is not null as canceled, s.version, i.caller, i.key
     from pricing.flash_sales s left join pricing.idempotency i
       on i.operation = 'flash_sale' and i.answer -> 'value' ->> 'saleId' = s.sale_id order by s.sale_id`
  )
  return rows.map((row) => {
    const { sale_id: saleId, ends_ms: endsAt } = row
    const madeFrom = (row.caller !== null && row.key !== null && memory.firstAsked(row.caller, row.key)) || 0
    const told = memory.sales.filter((sale) => sale.saleId === saleId).map(({ answeredAt }) => answeredAt)
    const cancels = memory.saleCancels.filter((cancel) => cancel.saleId === saleId)
    const overFrom = firstShown(evidence, endsAt, madeFrom)
    return {
      saleId,
      productId: row.product_id,
      priceMinor: row.price_minor,
      startsAt: row.starts_ms,
      endsAt,
      canceled: row.canceled,
      madeFrom,
      madeBy: earliest([...told, published(saleId, 1)]),
      overFrom,
      goneFrom: earliest([overFrom, ...cancels.map(({ askedAt }) => askedAt)]),
      goneBy: earliest([published(saleId, row.version), ...cancels.flatMap(({ answeredAt }) => answeredAt ?? [])])
    }
  })
}

/** Whether a sale's price was held by whoever looked at the clock between two times: maybe, and for certain. */
export const heldBetween = (
  { pricingClocks }: Pick<Evidence, "pricingClocks">,
  sale: Sale,
  from: number,
  until: number
) => {
  const shown = pricingClocks
    .filter((span) => span.from <= until && span.to >= from)
    .map(({ skewMs, ...span }) => [Math.max(span.from, from) + skewMs, Math.min(span.to, until) + skewMs] as const)
  // Of two things of the same millisecond nobody knows here which was first.
  const isThere = sale.madeFrom <= until && from <= sale.goneBy
  return {
    maybe: isThere && shown.some(([first, last]) => first < sale.endsAt && last >= sale.startsAt),
    certainly:
      sale.madeBy < from &&
      until < sale.goneFrom &&
      shown.every(([first, last]) => first >= sale.startsAt && last < sale.endsAt)
  }
}

interface PriceRow {
  readonly product_id: string
  readonly version: number
  readonly price_minor: number
  readonly reason: string
}

/** What products cost on the shelf, in the order in which the prices were set. */
export const shelfPricesOf = async (evidence: Evidence): Promise<ReadonlyArray<ShelfPrice>> => {
  const { begun } = evidence.memory
  const published = publishedAt(evidence, "catalogue.events")
  // Nothing but prices ever changes of the model's products: a revision is a version.
  const rows = await objects<PriceRow>(
    evidence,
    `select product_id, revision as version, price_minor, reason from catalogue.product_price_history
     order by product_id, revision`
  )
  return rows.map(({ product_id: productId, version, price_minor: priceMinor, reason }) => {
    const command = Number(/^change (\d+)$/.exec(reason)?.[1])
    const from = begun.get(command) ?? 0
    return { productId, priceMinor, from, until: published(productId, version + 1) }
  })
}
