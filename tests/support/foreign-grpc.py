# A client of the stock that was written from its contract alone: grpcio of Python, on code that protoc made of the exported
# inventory.proto and of the protocol's own health.proto and reflection.proto. Says as JSON what it was told.
import json
import os
import sys

import grpc

# Code of the protocol's own files lies under the library's name.
grpc.__path__.append(os.path.join(os.environ["PYTHONPATH"], "grpc"))

from google.protobuf import descriptor_pb2, json_format

import inventory_pb2 as stock
from grpc.health.v1 import health_pb2 as health
from grpc.reflection.v1 import reflection_pb2 as v1
from grpc.reflection.v1alpha import reflection_pb2 as v1alpha

address, token, product = sys.argv[1:4]
channel = grpc.insecure_channel(address)
# The ids and the trace of whoever asks come back.
told = [("correlation-id", "from-python"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
authorized = told + [("authorization", "Bearer " + token)]


def call(service, method, request, reply, metadata=told, timeout=30):
    ask = channel.unary_unary(
        f"/{service}/{method}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
    )
    try:
        answer, call = ask.with_call(request, metadata=metadata, timeout=timeout)
        return {
            "answer": json_format.MessageToDict(answer, preserving_proto_field_name=True),
            "correlation": dict(call.initial_metadata()).get("correlation-id"),
            "trace": dict(call.initial_metadata()).get("traceparent", "")[3:35],
        }
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin", b"")
        return {"code": error.code().name, "details": details.decode("latin-1")}


inventory = "merkato.inventory.v1.Inventory"
reserve = lambda qty, id: stock.ReserveRequest(
    reservation_id=id, order_id="ORDER-PYTHON", items=[stock.Item(product_id=product, qty=qty)], ttl_seconds=60
)


def moved(method, request, reply, metadata=authorized):
    return call(inventory, method, request, reply, metadata)


def reflected(version, service):
    requests = [
        version.ServerReflectionRequest(list_services=""),
        version.ServerReflectionRequest(file_containing_symbol=inventory),
        version.ServerReflectionRequest(file_containing_symbol="nobody.Knows"),
    ]
    ask = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=version.ServerReflectionResponse.FromString,
    )
    services, file, unknown = ask(iter(requests), timeout=30)
    (bytes_,) = file.file_descriptor_response.file_descriptor_proto
    described = descriptor_pb2.FileDescriptorProto.FromString(bytes_)
    expected = descriptor_pb2.FileDescriptorProto()
    stock.DESCRIPTOR.CopyToProto(expected)
    # The name of the file is the server's own, and names in JSON follow from the others.
    for each in (described, expected):
        each.name = ""
        for message in each.message_type:
            for field in message.field:
                field.ClearField("json_name")
    return {
        "services": [each.name for each in services.list_services_response.service],
        "same": described == expected,
        "unknown": unknown.error_response.error_code,
    }


serving = lambda service: call("grpc.health.v1.Health", "Check", health.HealthCheckRequest(service=service), health.HealthCheckResponse)

print(
    json.dumps(
        {
            "bytes": reserve(2, "RES-PYTHON").SerializeToString().hex(),
            "health": [serving(""), serving(inventory), serving("nobody.Knows")["code"]],
            "stranger": moved("ReserveStock", reserve(2, "RES-PYTHON"), stock.ReserveReply, told),
            "reserved": moved("ReserveStock", reserve(2, "RES-PYTHON"), stock.ReserveReply),
            "again": moved("ReserveStock", reserve(2, "RES-PYTHON"), stock.ReserveReply),
            "held": call(inventory, "QueryStock", stock.StockQuery(product_id=product), stock.StockLevels),
            "short": moved("ReserveStock", reserve(9900, "RES-SHORT"), stock.ReserveReply),
            "nonsense": moved("ReserveStock", reserve(-1, "no id!"), stock.ReserveReply),
            "released": moved("ReleaseStock", stock.ReleaseRequest(reservation_id="RES-PYTHON"), stock.ReleaseReply),
            "late": moved("ReserveStock", reserve(2, "RES-PYTHON"), stock.ReserveReply),
            "nothing": call(inventory, "QueryStock", stock.StockQuery(product_id="NEVER-SEEN"), stock.StockLevels),
            "unimplemented": moved("MoveStock", reserve(1, "RES-1"), stock.ReserveReply),
            "reflection": [
                reflected(v1, "grpc.reflection.v1.ServerReflection"),
                reflected(v1alpha, "grpc.reflection.v1alpha.ServerReflection"),
            ],
        }
    )
)
