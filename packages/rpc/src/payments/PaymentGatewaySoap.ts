/** The SOAP surface of a payment gateway, as its WSDL promises it, in types: for the client and the test gateway alike. */
import { Result, Schema } from "effect"
import { Id } from "@merkato/domain/kernel/Ids"
import { Currency, maxMinor, minorUnits } from "@merkato/domain/kernel/Money"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import wsdlText from "./PaymentGateway.wsdl" with { type: "text" }
import { AttemptStatus } from "./PaymentGatewayRest.ts"

/** The WSDL, with the address at which it is served. */
export const wsdl = (address: string): string =>
  wsdlText.replace("http://localhost:8090/soap/payments", () => address.replaceAll(/[<>&"']/g, ""))

export const namespace = "urn:merkato:payment-gateway:v1"

/** The header that carries the attempt's id. */
export const attemptHeader = "AttemptId"

export const operations = ["ProcessPayment", "Authorise", "Capture", "Void", "Refund", "GetPayment"] as const
export type Operation = (typeof operations)[number]

export const soapAction = (operation: Operation) => `${namespace}#${operation}`

/** An `xs:decimal` (XML Schema 1.0, part 2, section 3.2.3), not negative. */
const Decimal = Schema.String.check(Schema.isPattern(/^\+?(?:\d{1,19}(?:\.\d{0,19})?|\.\d{1,19})$/))

const order = { orderId: Id, amount: Decimal, currency: Currency }

export const ProcessPayment = Schema.Struct(order)
export const Authorise = Schema.Struct({ ...order, token: PaymentToken })
export const Refund = Schema.Struct({ refundId: Id, amount: Decimal, currency: Currency })

export const Payment = Schema.Struct({
  attemptId: Id,
  orderId: Schema.optional(Id),
  amount: Schema.optional(Decimal),
  currency: Schema.optional(Currency),
  status: AttemptStatus,
  reason: Schema.optional(Schema.String),
  refundedAmount: Schema.optional(Decimal)
})

export const Refunded = Schema.Struct({ attemptId: Id, refundId: Id, amount: Decimal, currency: Currency })

/** The element in a fault's detail. */
export const faultElement = "GatewayFault"

export const GatewayFault = Schema.Struct({
  code: Schema.Literals(["Unavailable", "InvalidRequest", "UnknownAttempt", "ConflictingRepeat", "RefundRefused"]),
  message: Schema.String
})
export type GatewayFault = typeof GatewayFault.Type

/** Minor units as an `xs:decimal`, exactly: 2510 USD is 25.10. */
export const decimalOf = (minor: number, currency: Currency): string => {
  const digits = minorUnits[currency]
  const padded = String(minor).padStart(digits + 1, "0")
  return digits === 0 ? padded : `${padded.slice(0, -digits)}.${padded.slice(-digits)}`
}

/** An `xs:decimal` in minor units, exactly; fails where a digit would be lost, or when it is too large. */
export const minorOf = (decimal: string, currency: Currency): Result.Result<number, string> => {
  const [whole = "", fraction = ""] = decimal.replace("+", "").split(".")
  const digits = minorUnits[currency]
  const significant = fraction.replace(/0+$/, "")
  const minor = BigInt(`${whole}${significant.padEnd(digits, "0")}`)
  return significant.length > digits || minor > maxMinor
    ? Result.fail(`${decimal} is not an amount of ${currency}`)
    : Result.succeed(Number(minor))
}
