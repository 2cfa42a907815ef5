import { FlashSaleEnded, FlashSaleStarted } from "@merkato/domain/pricing/PricingEvents"

/** Where flash sales are watched, over server-sent events. */
export const path = "/sse/flash-sales"

/** What is sent as which event of the stream: its data is the payload, its id the event's id. */
export const events = [
  { event: "flash_sale.started", definition: FlashSaleStarted },
  { event: "flash_sale.ended", definition: FlashSaleEnded }
] as const

/** What the stream says of itself. */
export const notices = {
  /** The last event that the client has seen is no longer kept: some may be missing, GET /api/v1/flash-sales has them all. */
  resumeNotPossible: { event: "resume_not_possible", data: { code: "resume_not_possible" } },
  /** The client read too slowly, and is sent away. */
  slowReader: { event: "error", data: { code: "slow_reader" } }
} as const

export const limits = {
  /** Events that wait for a client to read them. */
  waitingEvents: 64,
  /** Events that a client may be behind when it resumes. */
  keptEvents: 10_000,
  /** A comment at least so often, for whoever is in between and takes silence for the end. */
  heartbeatMs: 15_000,
  /** How long clients wait at least before they come back when the server stops, and at most. */
  retryMs: { least: 500, most: 3_000 }
} as const
