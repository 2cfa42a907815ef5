// What others rely on: each message of inventory.proto as bytes, as protoc has written them (version 3.21.12), and each method.
import { expect, test } from "bun:test"
import { Option, Schema } from "effect"
import { OutOfStock, ReservationClosed } from "@merkato/domain/inventory/Stock"
import { OrderId, ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { codeOf, Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import * as GrpcStatus from "@merkato/infra/grpc/GrpcStatus"
import * as Protobuf from "@merkato/infra/grpc/Protobuf"
import * as Grpc from "@merkato/rpc/grpc/InventoryGrpc"
import * as Faults from "../src/gateway/grpc/Faults.ts"

const proto = Protobuf.read(Grpc.inventoryProto)

const golden: Readonly<Record<string, readonly [Protobuf.Fields, string]>> = {
  ReserveRequest: [
    {
      reservation_id: "RES-1",
      order_id: "ORDER-1",
      items: [
        { product_id: "P1", qty: 2 },
        { product_id: "P2", qty: 300 }
      ],
      ttl_seconds: 900
    },
    "0a055245532d3112074f524445522d311a060a02503110021a070a02503210ac02208407"
  ],
  Item: [{ product_id: "P1", qty: 2 }, "0a0250311002"],
  ReserveReply: [{ order_id: "ORDER-1" }, "0a074f524445522d31"],
  ReleaseRequest: [{ reservation_id: "RES-1" }, "0a055245532d31"],
  ReleaseReply: [{}, ""],
  StockQuery: [{ product_id: "P1" }, "0a025031"],
  StockLevels: [
    { product_id: "P1", on_hand: 500, reserved: 2, available: 498, version: Number.MAX_SAFE_INTEGER },
    "0a02503110f403180220f20328ffffffffffffff0f"
  ]
}

test("every message of the contract is the bytes it has always been, and back", () => {
  const messages = [...proto.symbols].filter((name) => !name.startsWith(Grpc.service))
  expect(messages.map((name) => name.replace("merkato.inventory.v1.", "")).toSorted()).toEqual(
    Object.keys(golden).toSorted()
  )
  for (const [name, [fields, bytes]] of Object.entries(golden)) {
    const message = proto.message(`merkato.inventory.v1.${name}`)
    expect([name, message.encode(fields).toString("hex")]).toEqual([name, bytes])
    expect(message.decode(Buffer.from(bytes, "hex"))).toEqual(fields)
  }
})

test("every method is where it has always been", () => {
  expect(proto.services).toEqual(["merkato.inventory.v1.Inventory"])
  expect(
    proto
      .methods(Grpc.service)
      .map(({ path, requestStream, responseStream }) => ({ path, requestStream, responseStream }))
  ).toEqual(
    ["ReserveStock", "ReleaseStock", "QueryStock"].map((name) => ({
      path: `/merkato.inventory.v1.Inventory/${name}`,
      requestStream: false,
      responseStream: false
    }))
  )
})

test("fields that came later are passed over, as those who are older have to", () => {
  const { decode } = proto.message("merkato.inventory.v1.ReleaseRequest")
  expect(decode(Buffer.from("0a055245532d319a0603616263", "hex"))).toEqual({ reservation_id: "RES-1" })
})

const told = {
  domain: Grpc.domain,
  arrival: { at: 0, correlationId: "c", traceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }
}

test("a typed error goes through a status and is the same again", () => {
  const errors = [
    new OutOfStock({ products: [{ productId: ProductId.make("P1"), requested: 3, available: 1 }] }),
    // Ids that read like numbers are text.
    new ReservationClosed({ reservationId: ReservationId.make("17"), status: "released" }),
    new Forbidden({ action: "stock.reserve" }),
    new ServiceUnavailable({ service: "inventory", retryAfterSeconds: 3 })
  ]
  for (const error of errors) {
    const fault = Faults.ofError(error, told)
    const info = Option.getOrThrow(GrpcStatus.errorInfoOf(GrpcStatus.encode(fault)))
    expect(info).toMatchObject({
      reason: codeOf(error._tag),
      domain: "inventory.merkato",
      metadata: { traceId: "0af7651916cd43dd8448eb211c80319c" }
    })
    expect(Option.getOrThrow(Grpc.reserveRefusal(info.reason, info.metadata))).toEqual(error)
  }
  expect(Option.isNone(Grpc.reserveRefusal("out_of_stock", {}))).toBe(true)
  expect(Option.isNone(Grpc.reserveRefusal("something_new", { products: "[]" }))).toBe(true)
})

test("the details of a refusal are the bytes that clients in other languages read", () => {
  const { code, ...fault } = Faults.ofError(new ServiceUnavailable({ service: "s", retryAfterSeconds: 3 }), told)
  expect(code).toBe("UNAVAILABLE")
  expect(GrpcStatus.encode({ ...fault, code, metadata: { service: "s" } }).toString("hex")).toBe(
    [
      "080e121c73206973206e6f7420617661696c61626c65207269676874206e6f771a620a28",
      Buffer.from("type.googleapis.com/google.rpc.ErrorInfo").toString("hex"),
      "12360a13736572766963655f756e617661696c61626c651211696e76656e746f72792e6d65726b61746f1a0c0a0773657276696365120173",
      "1a300a28",
      Buffer.from("type.googleapis.com/google.rpc.RetryInfo").toString("hex"),
      "12040a020803"
    ].join("")
  )
})

const decode = Schema.decodeUnknownSync(Grpc.ReserveRequest)

test("reservations mean the same in the words of both", () => {
  const request = {
    reservationId: ReservationId.make("RES-1"),
    orderId: OrderId.make("ORDER-1"),
    items: [{ productId: ProductId.make("P1"), qty: 2 }],
    ttlMs: 900_000
  }
  const message = Grpc.fromReserve(request)
  expect(Grpc.toReserve(decode(message))).toEqual(request)
  expect(Grpc.toReserve(decode({ ...message, ttl_seconds: 0 })).ttlMs).toBe(900_000)
  // Never shorter than was asked for.
  expect(Grpc.fromReserve({ ...request, ttlMs: 1_001 }).ttl_seconds).toBe(2)
})
