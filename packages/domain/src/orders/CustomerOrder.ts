import { Schema } from "effect"
import { OrderId, UserId } from "../kernel/Ids.ts"
import { Currency, Minor } from "../kernel/Money.ts"
import { Region } from "../kernel/Region.ts"
import { OrderStatus } from "./Order.ts"

/** An order as a line of its customer's list; as old as an event needs to arrive. */
export class CustomerOrder extends Schema.Class<CustomerOrder>("CustomerOrder")({
  orderId: OrderId,
  userId: UserId,
  region: Region,
  status: OrderStatus,
  /** How many different products. */
  items: Schema.Int,
  totalMinor: Minor,
  currency: Currency,
  placedAt: Schema.DateTimeUtcFromString,
  updatedAt: Schema.DateTimeUtcFromString,
  /** Of the order, when it came to this status. */
  version: Schema.Int
}) {}
