import { RpcGroup } from "effect/rpc"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import { Notification } from "@merkato/domain/notifications/Notification"
import { Contract } from "../contract/Contract.ts"
import { page, paging, query } from "../contract/Operation.ts"

export const NotificationsGroup = RpcGroup.make(
  /** The caller's feed, newest first. */
  query("List", { payload: paging, success: page(Notification), errors: [Forbidden, InvalidValue] })
)

export class NotificationsRpc extends Contract<NotificationsRpc>()("notifications", NotificationsGroup) {}
