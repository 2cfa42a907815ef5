import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { type Applied, type DeviceDelta, identity, identityOf } from "@merkato/domain/inventory/DeviceDelta"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import { defaultWarehouse } from "@merkato/domain/inventory/Stock"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { EventStore } from "@merkato/infra/events/EventStore"
import { eventIds, type Stamp } from "@merkato/infra/events/Stamp"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const Locked = Schema.Struct({
  productId: ProductId,
  onHand: Schema.Int,
  reserved: Schema.Int,
  version: Schema.Int
})
const decodeLocked = Schema.decodeUnknownEffect(Schema.Array(Locked))

/** A delta that counts, and what its event is stamped with. */
export interface Stamped extends Applied {
  readonly stamp: Stamp
}

/** The SQL of what devices tell. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore

  /** The shelves of products, locked in the order of their ids until the transaction ends; an empty one where there is none yet. */
  const lock = Tracing.fn("DeltasStore.lock")(function* (productIds: ReadonlyArray<string>) {
    yield* sql`
      insert into inventory.inventory_stock (product_id, warehouse_id, on_hand, reserved, version)
      select product_id, ${defaultWarehouse}, 0, 0, 0 from unnest(${productIds}::text[]) as p (product_id)
      order by product_id on conflict do nothing`
    const rows = yield* sql`
      select product_id as "productId", on_hand as "onHand", reserved, version from inventory.inventory_stock
      where product_id = any(${productIds}::text[]) and warehouse_id = ${defaultWarehouse}
      order by product_id for update`
    return yield* Effect.orDie(decodeLocked(rows))
  })

  /** Of messages that name themselves, those that were applied before: their deltas, by identity. */
  const known = Tracing.fn("DeltasStore.known")(function* (deltas: ReadonlyArray<DeviceDelta>) {
    const named = deltas.filter(({ messageId }) => messageId !== undefined)
    if (named.length === 0) return new Map<string, number>()
    const rows = yield* sql<{ sku: string; deviceId: string; messageId: string; delta: number }>`
      select sku, device_id as "deviceId", message_id as "messageId", delta
      from inventory.device_messages join unnest(
        ${named.map(({ sku }) => sku)}::text[],
        ${named.map(({ deviceId }) => deviceId ?? "")}::text[],
        ${named.map(({ messageId }) => messageId ?? "")}::text[]
      ) as asked (sku, device_id, message_id) using (sku, device_id, message_id)`
    return new Map(rows.map(({ sku, deviceId, messageId, delta }) => [identity(sku, deviceId, messageId), delta]))
  })

  /** Writes what became of shelves that are locked: levels, adjustments, what is remembered, events; one statement. */
  const write = Tracing.fn("DeltasStore.write")(function* (applied: ReadonlyArray<Stamped>, at: Date) {
    const each = <A>(of: (applied: Stamped) => A) => applied.map(of)
    const last = [...new Map(applied.map(({ shelf }) => [shelf.productId, shelf])).values()]
    const named = applied.filter(({ delta }) => identityOf(delta) !== undefined)
    const ids = yield* eventIds(applied.length * 2)
    const stamped = applied.map(({ delta, shelf, stamp }, index) => ({
      eventId: ids[applied.length + index] ?? "",
      stamp,
      event: StockAdjusted.of(shelf.productId, shelf.version, {
        ...shelf,
        warehouseId: defaultWarehouse,
        available: shelf.onHand - shelf.reserved,
        delta: delta.delta,
        reason: delta.reason
      })
    }))
    yield* sql`
      with changed as (
        update inventory.inventory_stock s set on_hand = l.on_hand, version = l.version
        from unnest(
          ${last.map(({ productId }) => productId)}::text[], ${last.map(({ onHand }) => onHand)}::int[],
          ${last.map(({ version }) => version)}::int[]
        ) as l (product_id, on_hand, version)
        where s.product_id = l.product_id and s.warehouse_id = ${defaultWarehouse}
      ), recorded as (
        insert into inventory.inventory_adjustment
          (adjustment_id, product_id, warehouse_id, delta, reason, adjusted_by, on_hand, adjusted_at)
        select adjustment_id, product_id, ${defaultWarehouse}, delta, reason, adjusted_by, on_hand, ${at} from unnest(
          ${ids.slice(0, applied.length)}::text[],
          ${each(({ shelf }) => shelf.productId)}::text[], ${each(({ delta }) => delta.delta)}::int[],
          ${each(({ delta }) => delta.reason)}::text[], ${each(({ delta }) => delta.deviceId ?? "device")}::text[],
          ${each(({ shelf }) => shelf.onHand)}::int[]
        ) as a (adjustment_id, product_id, delta, reason, adjusted_by, on_hand)
      ), remembered as (
        insert into inventory.device_messages (sku, device_id, message_id, delta, received_at)
        select sku, device_id, message_id, delta, ${at} from unnest(
          ${named.map(({ delta }) => delta.sku)}::text[], ${named.map(({ delta }) => delta.deviceId ?? "")}::text[],
          ${named.map(({ delta }) => delta.messageId ?? "")}::text[], ${named.map(({ delta }) => delta.delta)}::int[]
        ) as m (sku, device_id, message_id, delta)
      ), among as (
        select unnest(${last.map(({ productId }) => productId)}::text[]) as id
      ), ${events.appendingEach(stamped, sql.literal("among"))}
      select 1`
    yield* sql.afterCommit(events.committed)
  })

  return { lock, known, write }
})
