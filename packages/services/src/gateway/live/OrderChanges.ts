import { Effect, Schema, type Scope } from "effect"
import { OrderId, UserId } from "@merkato/domain/kernel/Ids"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { statusAfter } from "@merkato/domain/orders/OrderEvents"
import type { OrderFrame } from "@merkato/rpc/live/OrdersLive"

export type OrderFrame = typeof OrderFrame.Encoded

/** Told of an order that has changed its status; does not wait. */
export type Watcher = (change: OrderFrame) => void

/** Whose orders are watched in this process, and by whom. */
export interface OrderChanges {
  /** Hears of all orders of a person until the scope closes. */
  readonly watch: (userId: UserId, watcher: Watcher) => Effect.Effect<void, never, Scope.Scope>
  /** Tells those who watch what an event says of an order; whether somebody was told. */
  readonly tell: (envelope: Envelope) => Effect.Effect<boolean, Schema.SchemaError>
}

/** What every event of an order carries. */
const decode = Schema.decodeUnknownEffect(Schema.Struct({ orderId: OrderId, userId: UserId }))

export const make = (): OrderChanges => {
  const watching = new Map<string, Set<Watcher>>()
  return {
    watch: (userId, watcher) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const others = watching.get(userId)
          if (others === undefined) watching.set(userId, new Set([watcher]))
          else others.add(watcher)
        }),
        () =>
          Effect.sync(() => {
            const left = watching.get(userId)
            left?.delete(watcher)
            if (left?.size === 0) watching.delete(userId)
          })
      ),
    tell: Effect.fnUntraced(function* ({ aggregateVersion: version, eventType, occurredAt, payload }) {
      const status = statusAfter(eventType)
      if (status === undefined || watching.size === 0) return false
      const { orderId, userId } = yield* decode(payload)
      const watchers = watching.get(userId)
      if (watchers === undefined) return false
      for (const watcher of watchers) watcher({ orderId, status, version, occurredAt })
      return true
    })
  }
}
