/** gRPC server reflection: clients such as grpcurl ask the server for its contracts. v1, and v1alpha for those that are older. */
import type * as grpc from "@grpc/grpc-js"
import { codes } from "./GrpcStatus.ts"
import * as Protobuf from "./Protobuf.ts"
import reflectionProto from "./reflection.proto" with { type: "text" }

const versions = ["v1", "v1alpha"]

/** Adds reflection of these files, and of itself. */
export const addTo = (server: grpc.Server, others: ReadonlyArray<Protobuf.Proto>): void => {
  const own = versions.map((version) =>
    Protobuf.read(reflectionProto.replace("grpc.reflection.v1;", `grpc.reflection.${version};`))
  )
  const protos = [...others, ...own]
  const services = protos.flatMap(({ services }) => services)

  const fileOf = (asked: Protobuf.Fields): Protobuf.Proto | undefined => {
    const { file_by_filename: name, file_containing_symbol: symbol } = asked
    return protos.find((proto) => proto.file.name === name || proto.symbols.has(String(symbol)))
  }

  const answer = (asked: Protobuf.Fields): Protobuf.Fields => {
    switch (asked["message_request"]) {
      case "list_services":
        return { list_services_response: { service: services.map((name) => ({ name })) } }
      case "file_by_filename":
      case "file_containing_symbol": {
        const found = fileOf(asked)
        return found === undefined
          ? { error_response: { error_code: codes.NOT_FOUND, error_message: "It is not defined here" } }
          : { file_descriptor_response: { file_descriptor_proto: [found.file.bytes] } }
      }
      case "all_extension_numbers_of_type":
        return { all_extension_numbers_response: { base_type_name: asked["all_extension_numbers_of_type"] } }
      default:
        return { error_response: { error_code: codes.UNIMPLEMENTED, error_message: "There are no extensions here" } }
    }
  }

  for (const proto of own) {
    for (const { path, request, response } of proto.services.flatMap(proto.methods)) {
      const handler: grpc.handleBidiStreamingCall<Protobuf.Fields, Protobuf.Fields> = (call) => {
        call.on("data", (asked: Protobuf.Fields) =>
          call.write({ valid_host: asked["host"], original_request: asked, ...answer(asked) })
        )
        call.on("end", () => call.end())
      }
      server.register(path, handler, response.encode, request.decode, "bidi")
    }
  }
}
