import { Effect } from "effect"
import { NotificationsGroup } from "@merkato/rpc/notifications/NotificationsRpc"
import { Notifications } from "./Notifications.ts"

export const NotificationsHandlers = NotificationsGroup.toLayer(
  Effect.gen(function* () {
    const notifications = yield* Notifications
    return NotificationsGroup.of({ List: (options) => notifications.list(options) })
  })
)
