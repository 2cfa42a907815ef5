import { Schema } from "effect"
import { Day } from "../kernel/Day.ts"
import { Currency, Minor } from "../kernel/Money.ts"
import { Region } from "../kernel/Region.ts"

/** The most days that are added up at once. */
export const maxDays = 366

/** What a day brought in a region, by its own midnights. Amounts in minor units of `currency`. */
export class DailyRevenue extends Schema.Class<DailyRevenue>("DailyRevenue")({
  day: Day,
  region: Region,
  currency: Currency,
  /** Orders whose money came that day. */
  orders: Schema.Int,
  revenueMinor: Minor,
  /** What was given back that day, of whichever day's orders. */
  refundsMinor: Minor
}) {}
