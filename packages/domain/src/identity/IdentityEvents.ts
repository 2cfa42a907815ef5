import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { UserId } from "../kernel/Ids.ts"

/** Somebody registered. Carries no personal data: who needs it asks identity. */
export const UserRegistered = Event.define(
  "ecommerce.user.user.registered.v1",
  "user.events",
  Schema.Struct({ userId: UserId })
)

export const events = [UserRegistered] as const
