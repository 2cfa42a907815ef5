import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { answering, json, notificationJson, pageJson } from "./Rest.ts"

const defaultLimit = 20

export const NotificationRoutes = HttpApiBuilder.group(
  Api,
  "notifications",
  Effect.fn(function* (handlers) {
    const notifications = yield* NotificationsRpc
    return handlers.handleAll({
      listNotifications: ({ query: { limit = defaultLimit, ...query } }) =>
        answering(Effect.map(notifications.List({ ...query, limit }), (page) => json(pageJson(page, notificationJson))))
    })
  })
)
