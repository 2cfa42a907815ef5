import { Effect, Option } from "effect"
import { Redis } from "effect/persistence"
import { StockAdjusted, StockCommitted, StockReleased, StockReserved } from "@merkato/domain/inventory/InventoryEvents"
import { Cassandra } from "@merkato/infra/cassandra/Cassandra"
import * as CassandraRows from "@merkato/infra/cassandra/CassandraRows"
import * as RedisRows from "@merkato/infra/cache/RedisRows"
import * as Copy from "@merkato/infra/projection/Copy"
import * as Projection from "@merkato/infra/projection/Projection"

/** What an event says of the levels after it. */
interface Levels {
  readonly productId: string
  readonly warehouseId: string
  readonly onHand: number
  readonly reserved: number
}

const row = (
  { productId, warehouseId, onHand, reserved }: Levels,
  { aggregateVersion }: Projection.ProjectedEvent
): ReadonlyArray<Projection.Row> => [
  { product_id: productId, warehouse_id: warehouseId, on_hand: onHand, reserved, version: aggregateVersion }
]

/** What is on the shelves, and what of it is promised. */
export const inventorySnapshot = Projection.make({
  name: "inventory_snapshot",
  context: "inventory",
  topic: "inventory.events",
  key: { product_id: "text", warehouse_id: "text" },
  once: {},
  latest: { on_hand: "integer", reserved: "integer" },
  events: [
    Projection.on(StockAdjusted, row),
    Projection.on(StockReserved, row),
    Projection.on(StockReleased, row),
    Projection.on(StockCommitted, row)
  ]
})

/** `inventory:{productId}` of the caches. */
export const inRedis: RedisRows.Shape = { prefix: "inventory:" }

/** It lies in Redis, where there is one; Postgres has the stock itself. */
export const inventorySnapshotCopy = Copy.make({
  name: "inventory_snapshot",
  projection: inventorySnapshot,
  truth: "inventory.inventory_stock",
  variable: "REDIS_URL",
  store: Effect.map(Effect.serviceOption(Redis.Redis), (server) =>
    Option.isSome(server) ? RedisRows.make(inventorySnapshot, inRedis, server.value) : undefined
  )
})

/** And in Cassandra, where there is one: for who reads the stock of many shops at once. The shop itself does not. */
export const inventorySnapshotInCassandra = Copy.make({
  name: "inventory_snapshot_cassandra",
  projection: inventorySnapshot,
  truth: "inventory.inventory_stock",
  variable: "CASSANDRA_CONTACT_POINTS",
  store: Effect.map(Effect.serviceOption(Cassandra), (server) =>
    Option.isSome(server) ? CassandraRows.make(inventorySnapshot, server.value) : undefined
  )
})
