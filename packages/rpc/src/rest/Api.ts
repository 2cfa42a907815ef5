import { Schema, SchemaTransformation } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Category, PriceReason, ProductDescription, ProductName, Sku } from "@merkato/domain/catalogue/Product"
import { Email, Password, PersonName } from "@merkato/domain/identity/Identity"
import { AdjustmentReason, Delta } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Instant } from "@merkato/domain/kernel/Instant"
import { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
import { optionalText, text } from "@merkato/domain/kernel/Text"
import { PaymentToken, Rail } from "@merkato/domain/payments/Payment"
import { DeliveryStatus, EventTypes, WebhookUrl } from "@merkato/domain/partners/Webhook"
import { Decision } from "@merkato/domain/risk/Assessment"
import { FlashSaleStatus } from "@merkato/domain/pricing/FlashSale"
import { Items, Quantity } from "@merkato/domain/pricing/Quote"
import { AnalyticsGroup } from "../analytics/AnalyticsRpc.ts"
import { CartGroup } from "../cart/CartRpc.ts"
import { CatalogueGroup } from "../catalogue/CatalogueRpc.ts"
import { IdentityGroup } from "../identity/IdentityRpc.ts"
import { InventoryGroup } from "../inventory/InventoryRpc.ts"
import { NotificationsGroup } from "../notifications/NotificationsRpc.ts"
import { DeviceId, OrdersGroup } from "../orders/OrdersRpc.ts"
import { PartnersGroup } from "../partners/PartnersRpc.ts"
import { PricingGroup } from "../pricing/PricingRpc.ts"
import { RiskGroup } from "../risk/RiskRpc.ts"
import { JsonBody, SignedIn } from "./Access.ts"
import { documented } from "./Document.ts"
import * as Json from "./Json.ts"
import { AssessmentJson, OrderProcessJson, PoliciesJson, RevenueStreamJson } from "./OpsJson.ts"
import { idempotencyKeyRequired, namedInBody, type ProblemOptions, problemsOf } from "./Problems.ts"

type Contract = { readonly requests: ReadonlyMap<string, object> }

/** The problems of an endpoint: the errors that the contract of its operation lists. */
const problems = (group: Contract, operation: string, options?: ProblemOptions) => {
  const rpc = group.requests.get(operation)
  if (rpc === undefined || !("errorSchema" in rpc)) throw new Error(`No operation ${operation}`)
  const { errorSchema } = rpc
  const errors = hasMembers(errorSchema) ? errorSchema.members.filter((member) => !isReplayed(member)) : []
  return problemsOf(errors, options)
}

const hasMembers = (schema: unknown): schema is { readonly members: ReadonlyArray<Schema.Top> } =>
  typeof schema === "object" || typeof schema === "function" ? schema !== null && "members" in schema : false

/** A refusal that is given again has the status of the first time; the wrapper never reaches the wire. */
const isReplayed = (schema: Schema.Top): boolean => "fields" in schema && !("identifier" in schema)

const created = HttpApiSchema.status(201)
const notModified = HttpApiSchema.Empty(304).annotate({ description: "You have it already (If-None-Match)" })

const Limit = Schema.String.check(
  Schema.isPattern(/^(?:[1-9][0-9]?|100)$/u, { expected: "a whole number from 1 to 100" })
).pipe(Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString))
const SuggestionLimit = Schema.String.check(
  Schema.isPattern(/^(?:1?[1-9]|10|20)$/u, { expected: "a whole number from 1 to 20" })
).pipe(Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString))
const paging = {
  limit: Schema.optionalKey(Limit),
  cursor: Schema.optionalKey(Schema.String.check(Schema.isMaxCodePoints(512)))
}
const idempotent = { "idempotency-key": Schema.optionalKey(Schema.String) }
/** Headers of what moves money: the device, if the client names it, is for the assessment of risk. */
const paying = { ...idempotent, "x-device-id": Schema.optionalKey(DeviceId) }
const heldOrder = Json.OrderJson.pipe(HttpApiSchema.status(202))
const keyRequired: ProblemOptions = { codes: [[400, idempotencyKeyRequired]] }
const conditional = { "if-none-match": Schema.optionalKey(Schema.String) }
const ifMatch = { "if-match": Schema.optionalKey(Schema.String) }
const summary = (text: string) => OpenApi.annotations({ summary: text })

class Identity extends HttpApiGroup.make("identity").add(
  HttpApiEndpoint.post("register", "/customers", {
    payload: Schema.Struct({ email: Email, password: Password, name: PersonName, region: Schema.optionalKey(Region) }),
    success: Schema.Struct({ userId: Ids.UserId }).pipe(created),
    error: problems(IdentityGroup, "Register")
  }).annotateMerge(summary("Register as a shopper")),
  HttpApiEndpoint.post("signIn", "/sessions", {
    payload: Schema.Struct({ email: Schema.String, password: Schema.String.check(Schema.isMaxCodePoints(1_024)) }),
    success: Json.SessionJson.pipe(created),
    error: problems(IdentityGroup, "SignIn")
  }).annotateMerge(summary("Sign in: an access token for 15 minutes and a refresh token that works once")),
  HttpApiEndpoint.post("refresh", "/sessions/refresh", {
    payload: Schema.Struct({ refreshToken: Schema.String.check(Schema.isMaxCodePoints(1_024)) }),
    success: Json.SessionJson.pipe(created),
    error: problems(IdentityGroup, "Refresh")
  }).annotateMerge(summary("Go on with a session; the refresh token used is spent")),
  HttpApiEndpoint.delete("signOut", "/sessions", {
    success: HttpApiSchema.NoContent,
    error: problems(IdentityGroup, "SignOut")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("End the session; its access token lives on until it expires"))
) {}

const PriceInput = { price: Schema.Finite, currency: Currency }

class Catalogue extends HttpApiGroup.make("catalogue").add(
  HttpApiEndpoint.post("addProduct", "/products", {
    payload: Schema.Struct({
      sku: Sku,
      name: ProductName,
      description: Schema.optionalKey(ProductDescription),
      category: Category,
      ...PriceInput
    }),
    success: Json.ProductJson.pipe(created),
    error: problems(CatalogueGroup, "AddProduct")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Put a product on the shelf (admin)")),
  HttpApiEndpoint.get("listProducts", "/products", {
    query: {
      ...paging,
      q: Schema.optionalKey(optionalText(200)),
      category: Schema.optionalKey(optionalText(100))
    },
    headers: conditional,
    success: [Json.pageOf(Json.ProductJson), notModified],
    error: problems(CatalogueGroup, "ListProducts")
  }).annotateMerge(summary("Products, newest first; with q the best match first")),
  HttpApiEndpoint.get("suggestNames", "/search/suggestions", {
    query: { q: text(200), limit: Schema.optionalKey(SuggestionLimit) },
    success: Schema.Struct({ items: Schema.Array(Schema.String) }),
    error: problems(CatalogueGroup, "SuggestNames")
  }).annotateMerge(summary("Names of products that have all the words of q, each word perhaps only begun")),
  HttpApiEndpoint.get("searchFacets", "/search/facets", {
    query: { q: text(200) },
    success: Schema.Struct({ categories: Schema.Array(Json.CategoryJson) }),
    error: problems(CatalogueGroup, "SearchFacets")
  }).annotateMerge(
    summary("How many of the products that a search finds are in each category; on Postgres of some hundreds of them")
  ),
  HttpApiEndpoint.get("getProduct", "/products/:productId", {
    params: { productId: Ids.ProductId },
    headers: conditional,
    success: [Json.ProductJson, notModified],
    error: problems(CatalogueGroup, "GetProduct")
  }).annotateMerge(summary("One product")),
  HttpApiEndpoint.patch("changeProduct", "/products/:productId", {
    params: { productId: Ids.ProductId },
    headers: ifMatch,
    payload: Schema.Struct({
      name: Schema.optionalKey(ProductName),
      description: Schema.optionalKey(ProductDescription),
      category: Schema.optionalKey(Category)
    }),
    success: Json.ProductJson,
    error: problems(CatalogueGroup, "ChangeProduct")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Change what a product is called and where it stands (admin)")),
  HttpApiEndpoint.put("setPrice", "/products/:productId/price", {
    params: { productId: Ids.ProductId },
    headers: ifMatch,
    payload: Schema.Struct({ ...PriceInput, reason: PriceReason }),
    success: Json.ProductJson,
    error: problems(CatalogueGroup, "SetPrice")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Set a price from now on (admin)")),
  HttpApiEndpoint.get("listPrices", "/products/:productId/prices", {
    params: { productId: Ids.ProductId },
    query: paging,
    success: Json.pageOf(Json.PricePeriodJson),
    error: problems(CatalogueGroup, "PriceHistory")
  }).annotateMerge(summary("The prices a product had, newest first; validTo is null for the one that holds")),
  HttpApiEndpoint.get("listCategories", "/categories", {
    success: Schema.Struct({ items: Schema.Array(Json.CategoryJson) }),
    error: problems(CatalogueGroup, "ListCategories")
  }).annotateMerge(summary("Categories, and how many products each has"))
) {}

class FlashSales extends HttpApiGroup.make("flash-sales").add(
  HttpApiEndpoint.post("scheduleFlashSale", "/flash-sales", {
    headers: idempotent,
    payload: Schema.Struct({ productId: Ids.ProductId, ...PriceInput, startsAt: Instant, endsAt: Instant }),
    success: Json.FlashSaleJson.pipe(created),
    error: problems(PricingGroup, "ScheduleFlashSale", { statuses: namedInBody })
  })
    .middleware(SignedIn)
    .annotateMerge(
      summary("Sell a product for less from startsAt until before endsAt (admin); an Idempotency-Key is heeded if sent")
    ),
  HttpApiEndpoint.get("listFlashSales", "/flash-sales", {
    query: {
      ...paging,
      productId: Schema.optionalKey(Ids.ProductId),
      status: Schema.optionalKey(FlashSaleStatus)
    },
    success: Json.pageOf(Json.FlashSaleJson),
    error: problems(PricingGroup, "ListFlashSales")
  }).annotateMerge(summary("Flash sales, newest first")),
  HttpApiEndpoint.get("getFlashSale", "/flash-sales/:saleId", {
    params: { saleId: Ids.SaleId },
    success: Json.FlashSaleJson,
    error: problems(PricingGroup, "GetFlashSale")
  }).annotateMerge(summary("One flash sale")),
  HttpApiEndpoint.delete("cancelFlashSale", "/flash-sales/:saleId", {
    params: { saleId: Ids.SaleId },
    success: HttpApiSchema.NoContent,
    error: problems(PricingGroup, "CancelFlashSale")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Call a sale off, or end it now (admin); one that is over stays as it is"))
) {}

class Inventory extends HttpApiGroup.make("inventory").add(
  HttpApiEndpoint.get("levels", "/inventory/:productId", {
    params: { productId: Ids.ProductId },
    success: Json.LevelsJson,
    error: problems(InventoryGroup, "Levels")
  }).annotateMerge(summary("Stock of a product; zeros for one that never had any")),
  HttpApiEndpoint.post("adjust", "/inventory/:productId/adjustments", {
    params: { productId: Ids.ProductId },
    headers: idempotent,
    payload: Schema.Struct({ delta: Delta, reason: AdjustmentReason }),
    success: Json.LevelsJson.pipe(created),
    error: problems(InventoryGroup, "Adjust")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Change what is on hand (admin); an Idempotency-Key is heeded if sent"))
) {}

class Carts extends HttpApiGroup.make("carts").add(
  HttpApiEndpoint.post("createCart", "/carts", {
    success: Json.NewCartJson.pipe(created),
    error: problems(CartGroup, "CreateCart")
  })
    .annotateMerge(summary("A new cart; without a token also the guestToken that it is used with from then on"))
    .annotate(OpenApi.Override, { security: [{}, { bearer: [] }] }),
  HttpApiEndpoint.get("getCart", "/carts/:cartId", {
    params: { cartId: Ids.CartId },
    success: Json.CartJson,
    error: problems(CartGroup, "GetCart")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("A cart of one's own")),
  HttpApiEndpoint.put("setItem", "/carts/:cartId/items/:productId", {
    params: { cartId: Ids.CartId, productId: Ids.ProductId },
    payload: Schema.Struct({ qty: Quantity }),
    success: Json.CartJson,
    error: problems(CartGroup, "SetItem")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Put so many units of a product into the cart")),
  HttpApiEndpoint.delete("removeItem", "/carts/:cartId/items/:productId", {
    params: { cartId: Ids.CartId, productId: Ids.ProductId },
    success: Json.CartJson,
    error: problems(CartGroup, "RemoveItem")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Take a product out of the cart; also when it is not in it")),
  HttpApiEndpoint.post("mergeCart", "/carts/:cartId/merge", {
    params: { cartId: Ids.CartId },
    payload: Schema.Struct({ guestToken: Schema.String.check(Schema.isMaxCodePoints(4_096)) }),
    success: Json.CartJson,
    error: problems(CartGroup, "MergeCart")
  })
    .middleware(SignedIn)
    .annotateMerge(
      summary(
        "Add a guest's carts to this one, at most 99 a line; they are empty afterwards, so a repeat changes nothing"
      )
    )
) {}

class Orders extends HttpApiGroup.make("orders").add(
  HttpApiEndpoint.post("placeOrder", "/orders", {
    headers: idempotent,
    payload: Schema.Struct({
      items: Items,
      currency: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^[A-Z]{3}$/u))),
      expectedTotal: Schema.optionalKey(Schema.Finite)
    }),
    success: Json.OrderJson.pipe(created),
    error: problems(OrdersGroup, "Place", { ...keyRequired, statuses: namedInBody })
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Order, with the stock reserved for 15 minutes")),
  HttpApiEndpoint.get("listOrders", "/orders", {
    query: paging,
    success: Json.pageOf(Json.OrderJson),
    error: problems(OrdersGroup, "List")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("One's orders, newest first; everybody's for an admin")),
  HttpApiEndpoint.get("getOrder", "/orders/:orderId", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Get")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("An order of one's own; any for an admin")),
  HttpApiEndpoint.get("orderHistory", "/orders/:orderId/history", {
    params: { orderId: Ids.OrderId },
    success: Schema.Struct({ items: Schema.Array(Json.OrderHistoryJson), nextCursor: Schema.Null }),
    error: problems(OrdersGroup, "History")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("What happened to an order, oldest first")),
  HttpApiEndpoint.post("payOrder", "/orders/:orderId/pay", {
    params: { orderId: Ids.OrderId },
    headers: paying,
    payload: Schema.Struct({ paymentToken: PaymentToken, rail: Schema.optionalKey(Rail) }),
    success: [Json.OrderJson, heldOrder],
    error: problems(OrdersGroup, "Pay", keyRequired)
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Pay an order: it is PAID, or HELD (202) when its risk is to be looked at")),
  HttpApiEndpoint.post("checkout", "/checkout", {
    headers: paying,
    payload: Schema.Struct({
      cartId: Ids.CartId,
      paymentToken: PaymentToken,
      rail: Schema.optionalKey(Rail),
      expectedTotal: Schema.optionalKey(Schema.Finite)
    }),
    success: [Json.OrderJson.pipe(created), heldOrder],
    error: problems(OrdersGroup, "Checkout", { ...keyRequired, statuses: { ...namedInBody, CartNotFound: 422 } })
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Buy what is in a cart: the order is PAID, or HELD (202) when its risk is to be looked at")),
  HttpApiEndpoint.post("releaseOrder", "/orders/:orderId/release", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Release")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Let a held order go on: it can be paid (admin)")),
  HttpApiEndpoint.post("rejectOrder", "/orders/:orderId/reject", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Reject")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("End a held order; its stock goes back (admin)")),
  HttpApiEndpoint.post("cancelOrder", "/orders/:orderId/cancel", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Cancel")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Cancel an order that is not paid; its stock goes back")),
  HttpApiEndpoint.post("fulfilOrder", "/orders/:orderId/fulfil", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Fulfil")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Hand a paid order over (admin)"))
) {}

class Notifications extends HttpApiGroup.make("notifications").add(
  HttpApiEndpoint.get("listNotifications", "/notifications", {
    query: paging,
    success: Json.pageOf(Json.NotificationJson),
    error: problems(NotificationsGroup, "List")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("One's notifications, newest first"))
) {}

const subscription = { subscriptionId: Ids.SubscriptionId }
const accepted = HttpApiSchema.status(202)

class Webhooks extends HttpApiGroup.make("webhooks")
  .add(
    HttpApiEndpoint.post("subscribe", "/subscriptions", {
      payload: Schema.Struct({ url: WebhookUrl, eventTypes: EventTypes }),
      success: Json.SecretShownJson.pipe(created),
      error: problems(PartnersGroup, "Subscribe")
    })
      .middleware(SignedIn)
      .annotateMerge(
        summary(
          "Be told of events from now on: of one's own orders (an administrator of everybody's), of products, stock and sales. The secret is shown this once"
        )
      ),
    HttpApiEndpoint.get("listSubscriptions", "/subscriptions", {
      query: paging,
      success: Json.pageOf(Json.SubscriptionJson),
      error: problems(PartnersGroup, "ListSubscriptions")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One's subscriptions, newest first")),
    HttpApiEndpoint.get("getSubscription", "/subscriptions/:subscriptionId", {
      params: subscription,
      success: Json.SubscriptionJson,
      error: problems(PartnersGroup, "GetSubscription")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One subscription")),
    HttpApiEndpoint.delete("unsubscribe", "/subscriptions/:subscriptionId", {
      params: subscription,
      success: HttpApiSchema.NoContent,
      error: problems(PartnersGroup, "Unsubscribe")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Be told no more; what is owed is not sent")),
    HttpApiEndpoint.post("rotateSecret", "/subscriptions/:subscriptionId/rotate-secret", {
      params: subscription,
      success: Json.SecretShownJson,
      error: problems(PartnersGroup, "RotateSecret")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("A new secret, shown this once; the one before signs as well until previousSecretUntil")),
    HttpApiEndpoint.post("enableSubscription", "/subscriptions/:subscriptionId/enable", {
      params: subscription,
      success: Json.SubscriptionJson,
      error: problems(PartnersGroup, "Enable")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Be told again after DISABLED or GONE; a replay sends what came meanwhile")),
    HttpApiEndpoint.get("listDeliveries", "/subscriptions/:subscriptionId/deliveries", {
      params: subscription,
      query: { ...paging, status: Schema.optionalKey(DeliveryStatus) },
      success: Json.pageOf(Json.DeliveryJson),
      error: problems(PartnersGroup, "ListDeliveries")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("What a subscription is and was owed, newest first")),
    HttpApiEndpoint.post("replayDeliveries", "/subscriptions/:subscriptionId/replay", {
      params: subscription,
      payload: Schema.Struct({
        after: Schema.optionalKey(Ids.DeliveryId),
        limit: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })))
      }),
      success: Schema.Struct({ queued: Schema.Int, nextAfter: Schema.NullOr(Ids.DeliveryId) }).pipe(accepted),
      error: problems(PartnersGroup, "Replay")
    })
      .middleware(SignedIn)
      .annotateMerge(
        summary("Send again what came after a delivery, oldest first, limit at a time; go on with after = nextAfter")
      ),
    HttpApiEndpoint.get("getDelivery", "/deliveries/:deliveryId", {
      params: { deliveryId: Ids.DeliveryId },
      success: Json.DeliveryLogJson,
      error: problems(PartnersGroup, "GetDelivery")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One delivery: what is sent, and what came of each try")),
    HttpApiEndpoint.post("redeliver", "/subscriptions/:subscriptionId/deliveries/:deliveryId/redeliver", {
      params: { ...subscription, deliveryId: Ids.DeliveryId },
      success: Json.DeliveryJson.pipe(accepted),
      error: problems(PartnersGroup, "Redeliver")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Send a delivery once more, with all its retries")),
    HttpApiEndpoint.post("redeliverById", "/deliveries/:deliveryId/redeliver", {
      params: { deliveryId: Ids.DeliveryId },
      success: Json.DeliveryJson.pipe(accepted),
      error: problems(PartnersGroup, "Redeliver")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("The same, by the delivery alone"))
  )
  .prefix("/webhooks") {}

/** For those who run the shop; beside the API of the shop, not part of it. */
class Ops extends HttpApiGroup.make("ops")
  .add(
    HttpApiEndpoint.get("policies", "/policies", {
      success: PoliciesJson,
      error: problemsOf([Forbidden])
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Every guarded operation: limits in force, circuit, counts (admin)")),
    HttpApiEndpoint.get("saga", "/sagas/:id", {
      params: { id: Ids.Id },
      success: OrderProcessJson,
      error: problems(OrdersGroup, "Process")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Where an order process stands, by its id or its order's (admin)")),
    HttpApiEndpoint.get("assessments", "/risk/assessments", {
      query: { ...paging, decision: Schema.optionalKey(Decision) },
      success: Json.pageOf(AssessmentJson),
      error: problems(RiskGroup, "List")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Assessments of risk, newest first (admin)")),
    HttpApiEndpoint.get("assessment", "/risk/assessments/:assessmentId", {
      params: { assessmentId: Ids.AssessmentId },
      success: AssessmentJson,
      error: problems(RiskGroup, "Get")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One assessment of risk, with its reasons (admin)")),
    HttpApiEndpoint.get("revenuePerMinute", "/revenue/minutes", {
      query: { from: Instant, to: Instant },
      success: RevenueStreamJson,
      error: problems(AnalyticsGroup, "RevenuePerMinute")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("What each minute brought, late payments counted in; at most a day (admin)"))
  )
  .prefix("/ops") {}

/** The REST surface of the shop. Stable: extended, never broken. */
export class Api extends HttpApi.make("merkato")
  .add(Identity)
  .add(Catalogue)
  .add(FlashSales)
  .add(Inventory)
  .add(Carts)
  .add(Orders)
  .add(Notifications)
  .add(Webhooks)
  .prefix("/api/v1")
  .add(Ops)
  .middleware(JsonBody)
  // Unknown fields are somebody's mistake: better told than ignored. All mistakes are told at once.
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotate(HttpApi.QueryParseOptions, { errors: "all" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Merkato",
      version: "1",
      description:
        "A grocery shop. Money is a decimal number with its currency; times are RFC 3339 UTC; errors are RFC 9457 problems with a stable `code`.",
      transform: documented
    })
  ) {}
