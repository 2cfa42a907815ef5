import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import {
  ReservationExpired,
  StockCommitted,
  StockReleased,
  StockReserved
} from "@merkato/domain/inventory/InventoryEvents"
import { defaultWarehouse, maxUnits, ReservationStatus, Shortage, StockLevels } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { eventIds, type Stamp } from "@merkato/infra/events/Stamp"
import * as Combined from "@merkato/infra/postgres/Combined"
import { retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const LevelsRow = Schema.Array(StockLevels)
const decodeLevels = Schema.decodeUnknownEffect(LevelsRow)

const AttemptRow = Schema.Struct({
  reservationId: Schema.String,
  made: Schema.Boolean,
  shortages: Schema.Array(Shortage)
})
const decodeAttempts = Schema.decodeUnknownEffect(Schema.Array(AttemptRow))

/** What came of a wish. */
type Attempt = Pick<typeof AttemptRow.Type, "made" | "shortages">

/** There is a reservation with this id already. */
const taken: Attempt = { made: false, shortages: [] }

const Known = Schema.Struct({ orderId: Ids.OrderId, status: ReservationStatus })
const decodeKnown = Schema.decodeUnknownEffect(Schema.Array(Known))

export interface Hold {
  readonly reservationId: string
  readonly orderId: string
  readonly items: ReadonlyArray<{ readonly productId: string; readonly qty: number }>
  readonly expiresAt: Date
}

/** A reservation to be, with the ids of its events. */
interface Wish {
  readonly hold: Hold
  readonly stamp: Stamp
  readonly eventIds: ReadonlyArray<string>
}

/** How a reservation ends. */
export type Ending = "committed" | "released" | "expired"

const ClosingRow = Schema.Struct({
  reservationId: Schema.String,
  before: ReservationStatus,
  ending: Schema.NullOr(Schema.Literals(["committed", "released", "expired"]))
})
const decodeClosings = Schema.decodeUnknownEffect(Schema.Array(ClosingRow))

/** What came of closing a reservation: what it was before, and how it ended by this; null: not at all. */
export type Closing = Pick<typeof ClosingRow.Type, "before" | "ending">

/** A reservation to be closed; the last three digits of `eventId` are counted up for its events. */
interface Close {
  readonly reservationId: string
  readonly wanted: Ending
  readonly stamp: Stamp
  readonly eventId: string
}

/**
 * The SQL of inventory. Reserving and closing are one statement each: locks in the order of product ids, then the
 * decision on what was locked, then stock, events and outbox together.
 */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  const inAllWarehouses = sql.literal(`product_id as "productId", sum(on_hand)::int as "onHand",
    sum(reserved)::int as reserved, (sum(on_hand) - sum(reserved))::int as available, max(version) as version`)

  const levels = Tracing.fn("InventoryStore.levels")(function* (productId: string) {
    const rows = yield* sql`
      select ${inAllWarehouses} from inventory.inventory_stock where product_id = ${productId} group by product_id`
    return (yield* Effect.orDie(decodeLevels(rows)))[0]
  })

  const levelsOf = Tracing.fn("InventoryStore.levelsOf")(function* (productIds: ReadonlyArray<string>) {
    const rows = yield* sql`
      select ${inAllWarehouses} from inventory.inventory_stock
      where product_id = any(${productIds}::text[]) group by product_id`
    return yield* Effect.orDie(decodeLevels(rows))
  })

  const known = Tracing.fn("InventoryStore.known")(function* (reservationId: string) {
    const rows = yield* sql`
      select order_id as "orderId", status from inventory.reservations where reservation_id = ${reservationId}`
    return (yield* Effect.orDie(decodeKnown(rows)))[0]
  })

  /**
   * Holds for each caller all its items or none, as one statement. What several want of one product is counted up in the
   * order of the callers, refused ones included: so whoever is granted surely has it, and a caller that is granted
   * nothing is `short` only if what is left after all the granted is not enough for it. One that stood behind a refused
   * one may be neither, and is to be asked again. Waits at most `lockTimeoutMs` for a lock, unless that is 0.
   *
   * The new levels are made of the locked ones in every column that a check looks at: an update that meets a row which
   * changed since the statement began is checked once with the old values before it is done with the new ones.
   */
  const reserveAll = Tracing.fn("InventoryStore.reserveAll")(function* (
    wishes: ReadonlyArray<Wish>,
    warehouseId: string,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (wish: Wish) => A) => wishes.map(of)
    const lines = wishes.flatMap(({ hold, eventIds }) =>
      hold.items.map((item, index) => ({ ...item, reservationId: hold.reservationId, eventId: eventIds[index] ?? "" }))
    )
    const rows = yield* sql`
      with wish as materialized (
        select w.* from unnest(
          ${each(({ hold }) => hold.reservationId)}::text[],
          ${each(({ hold }) => hold.orderId)}::text[],
          ${each(({ hold }) => hold.expiresAt.toISOString())}::text[]::timestamptz[],
          ${each(({ stamp }) => stamp.occurredAt.toISOString())}::text[]::timestamptz[],
          ${each(({ stamp }) => stamp.region)}::text[],
          ${each(({ stamp }) => stamp.traceParent)}::text[],
          ${each(({ stamp }) => stamp.correlationId)}::text[]
        ) with ordinality as w
          (reservation_id, order_id, expires_at, occurred_at, region, trace_parent, correlation_id, nth),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        -- A scalar "exists" and a lateral "offset 0" stay look-ups by key; as joins they may become scans of the table.
        where not (select exists (select from inventory.reservations r where r.reservation_id = w.reservation_id))
      ), line as materialized (
        select * from wish join unnest(
          ${lines.map(({ reservationId }) => reservationId)}::text[],
          ${lines.map(({ productId }) => productId)}::text[],
          ${lines.map(({ qty }) => qty)}::int[],
          ${lines.map(({ eventId }) => eventId)}::text[]
        ) as l (reservation_id, product_id, qty, event_id) using (reservation_id)
      ), wanted as materialized (
        select distinct product_id from line order by product_id
      ), stock as materialized (
        select s.product_id, s.on_hand, s.reserved, s.version, s.on_hand - s.reserved as available
        from wanted cross join lateral (
          select * from inventory.inventory_stock stock
          where stock.product_id = wanted.product_id and stock.warehouse_id = ${warehouseId}
          offset 0 for update
        ) s
      ), counted as materialized (
        select line.*, coalesce(available, 0) as available,
          sum(qty) over (partition by product_id order by nth) as needed
        from line left join stock using (product_id)
      ), made as (
        insert into inventory.reservations
          (reservation_id, order_id, warehouse_id, status, product_ids, quantities, expires_at, created_at)
        select reservation_id, order_id, ${warehouseId}, 'held', array_agg(product_id), array_agg(qty), expires_at,
          occurred_at
        from counted group by reservation_id, order_id, expires_at, occurred_at having bool_and(available >= needed)
        order by reservation_id
        on conflict (reservation_id) do nothing
        returning reservation_id
      ), granted as materialized (
        select counted.*, sum(qty) over in_turn as taken, row_number() over in_turn as step
        from counted join made using (reservation_id)
        window in_turn as (partition by product_id order by nth rows unbounded preceding)
      ), total as materialized (
        select product_id, sum(qty) as taken, count(*) as steps from granted group by product_id
      ), changed as (
        update inventory.inventory_stock s
        set on_hand = stock.on_hand, reserved = stock.reserved + total.taken, version = stock.version + total.steps
        from stock join total using (product_id)
        where s.product_id = stock.product_id and s.warehouse_id = ${warehouseId}
      ), event_rows as (
        insert into inventory.events
          (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload)
        select event_id, ${StockReserved.type}, product_id, version + step, occurred_at, region, trace_parent,
          correlation_id, jsonb_build_object('productId', product_id, 'warehouseId', ${warehouseId}::text,
            'onHand', on_hand, 'reserved', reserved + taken, 'available', on_hand - reserved - taken,
            'version', version + step, 'qty', qty, 'reservationId', reservation_id, 'orderId', order_id)
        from granted join stock using (product_id) order by product_id, step
        returning position, aggregate_id, version
      ), outbox_rows as (
        insert into inventory.outbox (position, aggregate_id, version)
        select position, aggregate_id, version from event_rows
      )
      select reservation_id as "reservationId", reservation_id in (select reservation_id from made) as made, coalesce(
        jsonb_agg(jsonb_build_object('productId', product_id, 'requested', qty,
          'available', available - coalesce(total.taken, 0)) order by product_id)
          filter (where qty > available - coalesce(total.taken, 0)), '[]') as shortages
      from counted left join total using (product_id) group by reservation_id`
    const attempts = new Map((yield* Effect.orDie(decodeAttempts(rows))).map((row) => [row.reservationId, row]))
    return each(({ hold }): Attempt => attempts.get(hold.reservationId) ?? taken)
  })

  const alone = (wish: Wish) =>
    Effect.map(reserveAll([wish], defaultWarehouse, 0).pipe(retryLostRace), ([attempt]) => attempt ?? taken)

  const offer = yield* Combined.make({
    name: "InventoryStore.reserve together",
    together: (wishes: ReadonlyArray<Wish>, lockTimeoutMs) =>
      reserveAll(wishes, defaultWarehouse, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ hold }) => hold.reservationId
  })

  /**
   * Holds all items or none, with those who ask at the same moment; `made` is false when something is short or the id is
   * taken.
   */
  const reserve = Tracing.fn("InventoryStore.reserve")(function* (hold: Hold, stamp: Stamp) {
    const wish = { hold, stamp, eventIds: yield* eventIds(hold.items.length) }
    const attempt = yield* offer(wish)
    return attempt.made || attempt.shortages.length > 0 || attempt === taken ? attempt : yield* alone(wish)
  })

  /**
   * Ends held reservations, each as wanted: to be committed it must not be due, or it expires instead; to expire it must be.
   * What came of each that is there. Waits at most `lockTimeoutMs` for a lock, unless that is 0; the new levels are made of
   * the locked ones, as in `reserveAll`.
   */
  const closeAll = Tracing.fn("InventoryStore.closeAll")(function* (
    closes: ReadonlyArray<Close>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (close: Close) => A) => closes.map(of)
    const rows = yield* sql`
      with wish as materialized (
        select w.* from unnest(
          ${each(({ reservationId }) => reservationId)}::text[],
          ${each(({ wanted }) => wanted)}::text[],
          ${each(({ eventId }) => eventId)}::text[],
          ${each(({ stamp }) => stamp.occurredAt.toISOString())}::text[]::timestamptz[],
          ${each(({ stamp }) => stamp.region)}::text[],
          ${each(({ stamp }) => stamp.traceParent)}::text[],
          ${each(({ stamp }) => stamp.correlationId)}::text[]
        ) with ordinality as w
          (reservation_id, wanted, event_id, occurred_at, region, trace_parent, correlation_id, nth),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by reservation_id
      ), met as materialized (
        select wish.*, r.order_id, r.warehouse_id, r.product_ids, r.quantities, r.status as before, case
          when r.status <> 'held' then null
          when wanted = 'released' then 'released'
          when r.expires_at <= occurred_at then 'expired'
          when wanted = 'committed' then 'committed' end as ending
        from wish cross join lateral (
          select * from inventory.reservations r where r.reservation_id = wish.reservation_id offset 0 for update
        ) r
      ), closed as (
        update inventory.reservations r set status = ending, closed_at = occurred_at
        -- With "before" it looks like one row to the planner, which then takes the index of a small table, too.
        from met where r.reservation_id = met.reservation_id and before = 'held' and ending is not null
      ), line as materialized (
        select met.*, product_id, qty, case ending when 'committed' then qty else 0 end as sold, number
        from met cross join lateral unnest(product_ids, quantities) with ordinality as l (product_id, qty, number)
        where ending is not null
      ), wanted as materialized (
        select distinct product_id, warehouse_id from line order by product_id, warehouse_id
      ), stock as materialized (
        select s.product_id, s.warehouse_id, s.on_hand, s.reserved, s.version from wanted cross join lateral (
          select * from inventory.inventory_stock stock
          where stock.product_id = wanted.product_id and stock.warehouse_id = wanted.warehouse_id
          offset 0 for update
        ) s
      ), in_turn as materialized (
        select line.*, sum(qty) over turns as freed, sum(sold) over turns as gone, row_number() over turns as step
        from line window turns as (partition by product_id, warehouse_id order by nth rows unbounded preceding)
      ), total as materialized (
        select product_id, warehouse_id, sum(qty) as freed, sum(sold) as gone, count(*) as steps
        from line group by product_id, warehouse_id
      ), changed as (
        update inventory.inventory_stock s set on_hand = stock.on_hand - total.gone,
          reserved = stock.reserved - total.freed, version = stock.version + total.steps
        from stock join total using (product_id, warehouse_id)
        where s.product_id = stock.product_id and s.warehouse_id = stock.warehouse_id
      ), event_rows as (
        insert into inventory.events
          (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload)
        select left(event_id, 33) || lpad(to_hex(number), 3, '0'),
          case ending when 'committed' then ${StockCommitted.type} else ${StockReleased.type} end, product_id,
          version + step, occurred_at, region, trace_parent, correlation_id, jsonb_build_object('productId', product_id,
            'warehouseId', warehouse_id, 'onHand', on_hand - gone, 'reserved', reserved - freed,
            'available', on_hand - gone - reserved + freed, 'version', version + step, 'qty', qty,
            'reservationId', reservation_id, 'orderId', order_id)
        from in_turn join stock using (product_id, warehouse_id)
        union all
        select left(event_id, 33) || '000', ${ReservationExpired.type}, reservation_id, 1, occurred_at, region,
          trace_parent, correlation_id, jsonb_build_object('reservationId', reservation_id, 'orderId', order_id)
        from met where ending = 'expired'
        order by 3, 4
        returning position, aggregate_id, version
      ), outbox_rows as (
        insert into inventory.outbox (position, aggregate_id, version)
        select position, aggregate_id, version from event_rows
      )
      select reservation_id as "reservationId", before, ending from met`
    const closings = new Map((yield* Effect.orDie(decodeClosings(rows))).map((row) => [row.reservationId, row]))
    return each(({ reservationId }): Closing | undefined => closings.get(reservationId))
  })

  const offerClose = yield* Combined.make({
    name: "InventoryStore.close together",
    together: (closes: ReadonlyArray<Close>, lockTimeoutMs) => closeAll(closes, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ reservationId }) => reservationId
  })

  /** Ends a held reservation with those of the same moment, as `closeAll` says; undefined when there is none. */
  const close = Tracing.fn("InventoryStore.close")(function* (reservationId: string, wanted: Ending, stamp: Stamp) {
    return yield* offerClose({ reservationId, wanted, stamp, eventId: yield* Ids.next })
  })

  const extend = Tracing.fn("InventoryStore.extend")(function* (reservationId: string, until: Date, now: Date) {
    const rows = yield* sql`
      update inventory.reservations set expires_at = greatest(expires_at, ${until})
      where reservation_id = ${reservationId} and status = 'held' and expires_at > ${now} returning 1`
    return rows.length > 0
  })

  /** Refuses a reservation that has not come yet; false when it has. */
  const bury = Tracing.fn("InventoryStore.bury")(function* (
    reservationId: string,
    orderId: string,
    warehouseId: string,
    now: Date
  ) {
    const rows = yield* sql`
      insert into inventory.reservations
        (reservation_id, order_id, warehouse_id, status, product_ids, quantities, expires_at, created_at, closed_at)
      values (${reservationId}, ${orderId}, ${warehouseId}, 'released', '{}', '{}', ${now}, ${now}, ${now})
      on conflict (reservation_id) do nothing returning 1`
    return rows.length > 0
  })

  const due = Tracing.fn("InventoryStore.due")(function* (now: Date, limit: number) {
    const rows = yield* sql<{ reservationId: string }>`
      select reservation_id as "reservationId" from inventory.reservations
      where status = 'held' and expires_at <= ${now} order by expires_at limit ${limit}`
    return rows.map((row) => row.reservationId)
  })

  /**
   * Changes what is on hand, if what is reserved stays covered and the warehouse holds it; the levels, or undefined. The
   * row to insert is checked even where it becomes an update, so it is not negative itself.
   */
  const adjust = Tracing.fn("InventoryStore.adjust")(function* (productId: string, warehouseId: string, delta: number) {
    const rows = yield* sql`
      insert into inventory.inventory_stock as s (product_id, warehouse_id, on_hand, reserved, version)
      select ${productId}, ${warehouseId}, greatest(${delta}, 0), 0, 1 where ${delta} >= 0
        or exists (select from inventory.inventory_stock where product_id = ${productId} and warehouse_id = ${warehouseId})
      on conflict (product_id, warehouse_id) do update
        set on_hand = s.on_hand + ${delta}, version = s.version + 1
        where s.on_hand + ${delta} between s.reserved and ${maxUnits}
      returning product_id as "productId", on_hand as "onHand", reserved, on_hand - reserved as available, version`
    return (yield* Effect.orDie(decodeLevels(rows)))[0]
  })

  const recordAdjustment = Tracing.fn("InventoryStore.recordAdjustment")(function* (
    adjustment: {
      readonly id: string
      readonly delta: number
      readonly reason: string
      readonly by: string
      readonly at: Date
    },
    stock: StockLevels,
    warehouseId: string
  ) {
    yield* sql`
      insert into inventory.inventory_adjustment
        (adjustment_id, product_id, warehouse_id, delta, reason, adjusted_by, on_hand, adjusted_at)
      values (${adjustment.id}, ${stock.productId}, ${warehouseId}, ${adjustment.delta}, ${adjustment.reason},
        ${adjustment.by}, ${stock.onHand}, ${adjustment.at})`
  })

  return { levels, levelsOf, known, reserve, close, extend, bury, due, adjust, recordAdjustment }
})
