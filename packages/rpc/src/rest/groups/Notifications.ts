import { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { NotificationsGroup } from "../../notifications/NotificationsRpc.ts"
import { SignedIn } from "../Access.ts"
import { paging, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

export class Notifications extends HttpApiGroup.make("notifications").add(
  HttpApiEndpoint.get("listNotifications", "/notifications", {
    query: paging,
    success: Json.pageOf(Json.NotificationJson),
    error: problems(NotificationsGroup, "List")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("One's notifications, newest first"))
) {}
