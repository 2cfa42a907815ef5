import type { Envelope } from "@merkato/domain/kernel/Event"
import { PaymentCaptured, RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import { RevenuePerMinute } from "./RevenuePerMinute.ts"

const take = (events: ReadonlyArray<Envelope>) => RevenuePerMinute.use((revenue) => revenue.take(events))

/** Adds up what each minute brings; with the inbox in the same transaction, so that nothing is added twice. */
export const addUpRevenue = Consumer.make({
  group: "analytics.revenue-per-minute",
  topic: "payment.events",
  eventTypes: [PaymentCaptured.type, RefundCompleted.type],
  mode: "apply",
  handle: (event) => take([event]),
  handleAll: (events) => take(events)
})
