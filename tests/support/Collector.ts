/** A span that a collector was sent. */
export interface Exported {
  /** `service.name` of who made it. */
  readonly service: string
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentId: string
  /** Those that are strings. */
  readonly attributes: Readonly<Record<string, string>>
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Readonly<Record<string, string>> }>
}

/** The fields of a protobuf message that are bytes, by their number; the others are passed over. */
const fieldsOf = (message: Uint8Array): ReadonlyArray<readonly [field: number, bytes: Uint8Array]> => {
  const fields: Array<readonly [number, Uint8Array]> = []
  let place = 0
  const varint = () => {
    let value = 0
    for (let shift = 1; ; shift *= 128) {
      const byte = message[place++] ?? 0
      value += (byte & 127) * shift
      if (byte < 128) return value
    }
  }
  while (place < message.length) {
    const tag = varint()
    switch (tag & 7) {
      case 0:
        varint()
        break
      case 1:
        place += 8
        break
      case 2: {
        const length = varint()
        fields.push([tag >> 3, message.subarray(place, place + length)])
        place += length
        break
      }
      case 5:
        place += 4
        break
      default:
        throw new Error(`no protobuf: wire type ${tag & 7}`)
    }
  }
  return fields
}

const inField = (message: Uint8Array, field: number) =>
  fieldsOf(message).flatMap(([number, bytes]) => (number === field ? [bytes] : []))

const textIn = (message: Uint8Array, field: number) => Buffer.from(inField(message, field)[0] ?? []).toString("utf8")

/** KeyValue: key (1), value (2), of which only strings (1) are read. */
const attributesIn = (message: Uint8Array, field: number): Readonly<Record<string, string>> =>
  Object.fromEntries(
    inField(message, field).map((pair) => [textIn(pair, 1), textIn(inField(pair, 2)[0] ?? new Uint8Array(), 1)])
  )

/**
 * ExportTraceServiceRequest: resource_spans (1); of each its resource (1) with attributes (1), and scope_spans (2) with
 * spans (2): trace_id (1), span_id (2), parent (4), name (5), attributes (9), events (11) with name (2) and attributes (3).
 */
const spansIn = (request: Uint8Array): ReadonlyArray<Exported> =>
  inField(request, 1).flatMap((ofResource) => {
    const [resource = new Uint8Array()] = inField(ofResource, 1)
    const service = attributesIn(resource, 1)["service.name"] ?? ""
    return inField(ofResource, 2)
      .flatMap((ofScope) => inField(ofScope, 2))
      .map((span) => {
        const id = (field: number) => Buffer.from(inField(span, field)[0] ?? []).toString("hex")
        return {
          service,
          name: textIn(span, 5),
          traceId: id(1),
          spanId: id(2),
          parentId: id(4),
          attributes: attributesIn(span, 9),
          events: inField(span, 11).map((event) => ({ name: textIn(event, 2), attributes: attributesIn(event, 3) }))
        }
      })
  })

export interface Collector {
  /** For `OTEL_EXPORTER_OTLP_ENDPOINT`. */
  readonly url: string
  /** What it has been sent so far; grows. */
  readonly spans: ReadonlyArray<Exported>
  readonly stop: () => Promise<void>
}

/** Takes the spans that processes export over OTLP. */
export const startCollector = (): Collector => {
  const spans: Array<Exported> = []
  const server = Bun.serve({
    port: 0,
    fetch: async (request) => {
      const body = new Uint8Array(await request.arrayBuffer())
      if (new URL(request.url).pathname === "/v1/traces") {
        spans.push(...spansIn(request.headers.get("content-encoding") === "gzip" ? Bun.gunzipSync(body) : body))
      }
      return new Response(null, { status: 200 })
    }
  })
  return { url: server.url.href.replace(/\/$/, ""), spans, stop: () => server.stop(true) }
}
