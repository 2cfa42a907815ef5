/** A .proto file as it is written, in use: its messages to bytes and back, its methods, and how it describes itself. */
import protobuf from "protobufjs"
import descriptor from "protobufjs/ext/descriptor"

/** The fields of a message, under the names they have in the file. */
export type Fields = Readonly<Record<string, unknown>>

export interface Message {
  /** Throws when a field is not of its type. */
  readonly encode: (fields: Fields) => Buffer
  /** With the zero of every field that is not there. Throws when it is no such message. */
  readonly decode: (bytes: Uint8Array) => Fields
}

export interface Method {
  readonly name: string
  /** `/package.Service/Method` */
  readonly path: string
  readonly request: Message
  readonly response: Message
  readonly requestStream: boolean
  readonly responseStream: boolean
}

export interface Proto {
  /** By its full name. */
  readonly message: (name: string) => Message
  /** The methods of a service, by its full name. */
  readonly methods: (service: string) => ReadonlyArray<Method>
  /** Full names of the services in the file. */
  readonly services: ReadonlyArray<string>
  /** Full names of all that the file defines. */
  readonly symbols: ReadonlySet<string>
  /** Its name and bytes as a `FileDescriptorProto` (google/protobuf/descriptor.proto), for reflection. */
  readonly file: { readonly name: string; readonly bytes: Buffer }
}

const wellKnown = ["google/protobuf/any.proto", "google/protobuf/duration.proto"]

const messageOf = (type: protobuf.Type): Message => ({
  encode: (fields) => Buffer.from(type.encode(type.fromObject({ ...fields })).finish()),
  decode: (bytes) => type.toObject(type.decode(bytes), { defaults: true, longs: Number, oneofs: true })
})

const within = (namespace: protobuf.NamespaceBase): ReadonlyArray<protobuf.ReflectionObject> =>
  namespace.nestedArray.flatMap((each) => [each, ...(each instanceof protobuf.Namespace ? within(each) : [])])

const nameOf = ({ fullName }: protobuf.ReflectionObject) => fullName.slice(1)

/** protobuf.js leaves names of types as the file has them; readers of descriptors expect them in full. */
const inFull = (type: protobuf.Type, described: descriptor.IDescriptorProto): void => {
  for (const field of described.field ?? []) {
    const { resolvedType } = type.fields[field.name ?? ""] ?? {}
    if (resolvedType) field.typeName = resolvedType.fullName
  }
  for (const nested of described.nestedType ?? []) {
    const own = type.get(nested.name ?? "")
    // That of a map's entries exists in the description alone.
    if (own instanceof protobuf.Type) inFull(own, nested)
  }
}

/** Reads a .proto file of proto3; of others it may import Any and Duration. */
export const read = (text: string): Proto => {
  const root = new protobuf.Root()
  const parsed = protobuf.parse(text, root, { keepCase: true })
  for (const name of parsed.imports ?? []) {
    const known = wellKnown.includes(name) ? protobuf.common.get(name)?.nested : undefined
    if (known === undefined) throw new Error(`A .proto file imports ${name}, which is not known here`)
    root.addJSON(known)
  }
  root.resolveAll()
  const own = within(root).filter((each) => nameOf(each).startsWith(`${parsed.package}.`))
  const services = own.filter((each) => each instanceof protobuf.Service)
  const file = root.toDescriptor("proto3").file.find((each) => each.package === parsed.package)
  if (file === undefined || file === null) throw new Error(`A .proto file defines nothing in ${parsed.package}`)
  for (const described of file.messageType ?? []) {
    inFull(root.lookupType(`${parsed.package}.${described.name}`), described)
  }

  return {
    message: (name) => messageOf(root.lookupType(name)),
    methods: (service) =>
      root.lookupService(service).methodsArray.map((method) => {
        const { resolvedRequestType: request, resolvedResponseType: response } = method
        if (request === null || response === null) throw new Error(`${service}/${method.name} is not resolved`)
        return {
          name: method.name,
          path: `/${service}/${method.name}`,
          request: messageOf(request),
          response: messageOf(response),
          requestStream: method.requestStream ?? false,
          responseStream: method.responseStream ?? false
        }
      }),
    services: services.map(nameOf),
    symbols: new Set([
      ...own.map(nameOf),
      ...services.flatMap((service) => service.methodsArray.map(({ name }) => `${nameOf(service)}.${name}`))
    ]),
    file: {
      name: file.name ?? "",
      bytes: Buffer.from(
        descriptor.FileDescriptorProto.encode(descriptor.FileDescriptorProto.fromObject(file)).finish()
      )
    }
  }
}
