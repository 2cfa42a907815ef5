import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { Notifications as NotificationsUseCases, oldNews } from "./Notifications.ts"
import { tellShoppers } from "./NotificationsConsumers.ts"
import { NotificationsHandlers } from "./NotificationsHandlers.ts"

export const Notifications = BoundedContext.make("notifications", {
  contract: NotificationsRpc,
  handlers: NotificationsHandlers,
  useCases: NotificationsUseCases.layer,
  topic: "notification.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  consumers: [tellShoppers],
  passing: [oldNews]
})
