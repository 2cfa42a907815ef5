import { Schema } from "effect"
import type { Currency } from "./Money.ts"

/** Where a customer shops: in the token, the envelope and every order. */
export const Region = Schema.Literals(["us", "eu", "apac", "in", "br"])
export type Region = typeof Region.Type

export const defaultRegion: Region = "us"

/** The currency a region trades in when nothing else is said. */
export const regionCurrency: Record<Region, Currency> = { us: "USD", eu: "EUR", apac: "SGD", in: "INR", br: "BRL" }

/** Whose midnight ends a region's day (IANA). */
export const regionTimeZone: Record<Region, string> = {
  us: "America/New_York",
  eu: "Europe/Berlin",
  apac: "Asia/Singapore",
  in: "Asia/Kolkata",
  br: "America/Sao_Paulo"
}
