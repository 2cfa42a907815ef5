/** SOAP 1.1 messages, document/literal: written and read. What is in them is the caller's business. */
import { XMLBuilder } from "fast-xml-parser"
import { Data, Result } from "effect"
import { type Element, type Fields, parse, sayable } from "./Xml.ts"

const envelopeNamespace = "http://schemas.xmlsoap.org/soap/envelope/"

/** As HTTP calls them; SOAP 1.1 has no type of its own. */
export const contentType = "text/xml; charset=utf-8"

export interface Message {
  readonly headers: ReadonlyArray<Element>
  readonly body: Element
}

export interface Fault {
  /** Without its prefix: `Client`, `Server`, or one of these with more behind a dot (SOAP 1.1, section 4.4.1). */
  readonly code: string
  readonly reason: string
  readonly detail: Element | undefined
}

/**
 * Not a SOAP message that we can treat. `code` is the fault code that SOAP 1.1 (section 4.4.1) has for it.
 */
export class NotSoap extends Data.TaggedError("NotSoap")<{
  readonly code: "Client" | "VersionMismatch" | "MustUnderstand"
  readonly reason: string
}> {
  override get message() {
    return this.reason
  }
}

const builder = new XMLBuilder({
  ignoreAttributes: false,
  attributeNamePrefix: "@",
  suppressEmptyNode: true,
  processEntities: true
})

const cleaned = (fields: Fields): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, typeof value === "string" ? sayable(value) : cleaned(value)]]
    )
  )

const envelope = (headers: Fields | undefined, body: Record<string, unknown>) =>
  `<?xml version="1.0" encoding="UTF-8"?>${builder.build({
    "soap:Envelope": {
      "@xmlns:soap": envelopeNamespace,
      ...(headers === undefined ? {} : { "soap:Header": cleaned(headers) }),
      "soap:Body": body
    }
  })}`

/** Elements of one namespace, declared at each, so that their names need no prefix. */
const within = (namespace: string, elements: Fields): Fields =>
  Object.fromEntries(
    Object.entries(elements).flatMap(([name, value]) =>
      value === undefined
        ? []
        : [
            [
              name,
              typeof value === "string" ? { "@xmlns": namespace, "#text": value } : { "@xmlns": namespace, ...value }
            ]
          ]
    )
  )

/** A request or an answer: `name` with its fields, and headers, all of one namespace. */
export const write = (options: {
  readonly namespace: string
  readonly headers?: Fields
  readonly name: string
  readonly fields: Fields
}): string =>
  envelope(
    options.headers === undefined ? undefined : within(options.namespace, options.headers),
    cleaned(within(options.namespace, { [options.name]: options.fields }))
  )

export const writeFault = (fault: {
  readonly code: string
  readonly reason: string
  readonly namespace: string
  readonly detail?: Fields
}): string =>
  envelope(undefined, {
    "soap:Fault": cleaned({
      faultcode: `soap:${fault.code}`,
      faultstring: fault.reason,
      detail: fault.detail === undefined ? undefined : within(fault.namespace, fault.detail)
    })
  })

const mustUnderstand = `{${envelopeNamespace}}mustUnderstand`

/** Reads a message. `understood` names the headers, of whichever namespace, that the reader goes by. */
export const read = (text: string, understood: ReadonlyArray<string> = []): Result.Result<Message, NotSoap> =>
  Result.flatMap(
    Result.mapError(parse(text), ({ reason }) => new NotSoap({ code: "Client", reason })),
    (root) => {
      const refuse = (code: NotSoap["code"], reason: string) => Result.fail(new NotSoap({ code, reason }))
      if (root.name !== "Envelope") return refuse("Client", "not a SOAP envelope")
      if (root.namespace !== envelopeNamespace) return refuse("VersionMismatch", "only SOAP 1.1 is spoken here")
      const part = (name: string) =>
        root.children.filter((child) => child.namespace === envelopeNamespace && child.name === name)
      const [header] = part("Header")
      const headers = header?.children ?? []
      const foreign = headers.find(
        ({ attributes, name }) =>
          ["1", "true"].includes(attributes.get(mustUnderstand) ?? "") && !understood.includes(name)
      )
      if (foreign !== undefined) return refuse("MustUnderstand", `the header ${foreign.name} is not understood`)
      const [body] = part("Body")
      const [content] = body?.children ?? []
      if (content === undefined || body?.children.length !== 1) {
        return refuse("Client", "the body has to hold one element")
      }
      return Result.succeed({ headers, body: content })
    }
  )

/** The fault that a body is, if it is one. */
export const faultOf = ({ body }: Message): Fault | undefined => {
  if (body.namespace !== envelopeNamespace || body.name !== "Fault") return undefined
  // The parts of a fault are in no namespace (SOAP 1.1, section 4.4); some write them in the envelope's.
  const child = (name: string) => body.children.find((part) => part.name === name)
  const code = child("faultcode")?.text.trim() ?? ""
  return {
    code: code.slice(code.indexOf(":") + 1),
    reason: child("faultstring")?.text.trim() ?? "",
    detail: child("detail")?.children[0]
  }
}
