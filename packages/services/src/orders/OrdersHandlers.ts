import { Effect } from "effect"
import { OrdersGroup } from "@merkato/rpc/orders/OrdersRpc"
import { OrderProcess } from "./OrderProcess.ts"
import { Orders } from "./Orders.ts"
import { OrdersByCustomer } from "./OrdersByCustomer.ts"

export const OrdersHandlers = OrdersGroup.toLayer(
  Effect.gen(function* () {
    const orders = yield* Orders
    const process = yield* OrderProcess
    const byCustomer = yield* OrdersByCustomer
    return OrdersGroup.of({
      Place: (request) => orders.place(request),
      Pay: (request) => process.pay(request),
      Checkout: (request) => process.checkout(request),
      Release: ({ orderId }) => orders.release(orderId),
      Reject: ({ orderId }) => orders.reject(orderId),
      Process: ({ id }) => process.state(id),
      Cancel: ({ orderId }) => orders.cancel(orderId),
      Fulfil: ({ orderId }) => orders.fulfil(orderId),
      Get: ({ orderId }) => orders.get(orderId),
      List: (options) => orders.list(options),
      ListOfCustomer: (options) => byCustomer.list(options),
      History: ({ orderId }) => orders.history(orderId)
    })
  })
)
