import { Context, DateTime, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Forbidden, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { Notification } from "@merkato/domain/notifications/Notification"
import { authorize, Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as Retention from "@merkato/infra/context/Retention"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const Row = Schema.Struct({
  notificationId: Ids.Id,
  userId: Ids.UserId,
  kind: Schema.String,
  orderId: Schema.NullOr(Ids.OrderId),
  text: Schema.String,
  createdAt: Schema.DateTimeUtcFromDate,
  readAt: Schema.NullOr(Schema.DateTimeUtcFromDate)
})
const decode = Schema.decodeUnknownEffect(Schema.Array(Row))

/** What is old is no news: the order itself still tells it. An id is that of the event that is told of. */
export const oldNews: Retention.Passing = {
  table: "notifications",
  age: Retention.byId("notification_id"),
  days: 90,
  setting: "MERKATO_KEEP_NOTIFICATIONS_DAYS"
}

/** Milliseconds since 1970, up to the last that a Date can be. */
const Millis = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 8_640_000_000_000_000 }))
const listCursor = Cursor.make(Schema.Struct({ createdAt: Millis, notificationId: Ids.Id }))

/** The use cases of notifications: a feed per user, in the app. */
export class Notifications extends Context.Service<
  Notifications,
  {
    /** Within the caller's transaction. The same notification twice is one. */
    readonly tell: (notifications: ReadonlyArray<Notification>) => Effect.Effect<void, ServiceUnavailable>
    readonly list: (options: {
      readonly limit: number
      readonly cursor?: string
    }) => Effect.Effect<Cursor.Page<Notification>, Forbidden | InvalidValue | ServiceUnavailable>
  }
>()("merkato/notifications/Notifications") {
  static readonly layer = Layer.effect(
    Notifications,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const authorizer = yield* Authorizer
      const orAway = orUnavailable("notifications")

      const tell = Tracing.fn("Notifications.tell")(function* (told: ReadonlyArray<Notification>) {
        yield* sql`
          insert into notifications.notifications (notification_id, user_id, kind, order_id, text, created_at)
          select * from unnest(
            ${told.map((each) => each.notificationId)}::text[], ${told.map((each) => each.userId)}::text[],
            ${told.map((each) => each.kind)}::text[], ${told.map((each) => each.orderId)}::text[],
            ${told.map((each) => each.text)}::text[], ${told.map((each) => DateTime.formatIso(each.createdAt))}::text[]::timestamptz[]
          )
          on conflict (notification_id) do nothing`
      }, orAway)

      const list = Tracing.fn("Notifications.list")(
        function* ({ limit, cursor }: { readonly limit: number; readonly cursor?: string }) {
          yield* authorize("notification.read")
          const { principal } = yield* RequestContext
          const after = yield* listCursor.decode(cursor)
          const beyond =
            after === undefined
              ? sql.literal("")
              : sql`and (created_at, notification_id) < (${new Date(after.createdAt)}, ${after.notificationId})`
          const rows = yield* sql`
            select notification_id as "notificationId", user_id as "userId", kind, order_id as "orderId", text,
              created_at as "createdAt", read_at as "readAt"
            from notifications.notifications where user_id = ${principal.userId} ${beyond}
            order by created_at desc, notification_id desc limit ${limit + 1}`
          const items = (yield* Effect.orDie(decode(rows))).map((row) => new Notification(row))
          return Cursor.page(items, limit, ({ createdAt, notificationId }) =>
            listCursor.encode({ createdAt: createdAt.epochMilliseconds, notificationId })
          )
        },
        orAway,
        Effect.provideService(Authorizer, authorizer)
      )

      return Notifications.of({ tell, list })
    })
  )
}
