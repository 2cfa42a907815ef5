import { describe, expect, test } from "bun:test"
import * as fc from "fast-check"
import { Result } from "effect"
import { faultOf, read, write, writeFault } from "../src/soap/Envelope.ts"
import { fields, parse } from "../src/soap/Xml.ts"

const namespace = "urn:test"

const contentOf = (text: string) => fields(Result.getOrThrow(read(text)).body)

/** Why a text is no SOAP message; `read` when it is one. */
const refusal = (text: string): string =>
  Result.match(read(text), { onFailure: ({ code }) => code, onSuccess: () => "read" })

test("what is written is read again, whatever is in it", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (value) => {
      // XML reads every line break as \n (section 2.11), and simple types do not keep white space around.
      const expected = value.replaceAll(/\r\n?/g, "\n").trim()
      expect(contentOf(write({ namespace, name: "Say", fields: { word: value, other: "x" } }))).toEqual({
        word: expected,
        other: "x"
      })
    }),
    { numRuns: 500 }
  )
})

test("a value cannot become an element, a header or an entity", () => {
  for (const value of [
    "</word><amount>1</amount><word>",
    "]]>",
    "<!--",
    "&amp;lt;",
    "&#60;",
    '"><x a="',
    "<![CDATA[x]]>"
  ]) {
    expect(contentOf(write({ namespace, headers: { Id: value }, name: "Say", fields: { word: value } }))).toEqual({
      word: value
    })
  }
})

test("characters that XML does not have are replaced, and the message stays readable", () => {
  expect(contentOf(write({ namespace, name: "Say", fields: { word: "a\u0000b\ud800c" } }))).toEqual({
    word: "a\uFFFDb\uFFFDc"
  })
})

describe("what is no message", () => {
  const message = write({ namespace, headers: { Id: "1" }, name: "Say", fields: { word: "hello" } })

  test("a message that ends early, at whichever character", () => {
    for (let length = 0; length < message.length; length++) expect(refusal(message.slice(0, length))).toBe("Client")
    expect(refusal(message)).toBe("read")
  })

  for (const [what, text, code] of [
    ["JSON", '{"status":"ok"}', "Client"],
    ["nothing", "", "Client"],
    ["a page", "<html><body>502 Bad Gateway</body></html>", "Client"],
    ["two documents", `${message}${message.slice(message.indexOf("?>") + 2)}`, "Client"],
    ["something behind it", `${message} and more`, "Client"],
    [
      "SOAP 1.2",
      message.replace("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"),
      "VersionMismatch"
    ],
    ["a prefix that is not declared", message.replaceAll("soap:Body", "sop:Body"), "Client"],
    [
      "an empty body",
      `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body/></e:Envelope>`,
      "Client"
    ],
    ["a header that has to be understood", message.replace("<Id ", `<Id soap:mustUnderstand="1" `), "MustUnderstand"],
    ["deep", "<a>".repeat(5_000) + "</a>".repeat(5_000), "Client"]
  ] as const)
    test(what, () => expect(refusal(text)).toBe(code))

  test("a document type, and every entity that it could declare", () => {
    const bomb = `<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>`
    expect(refusal(`${bomb}${message.slice(message.indexOf("?>") + 2)}`)).toBe("Client")
    const [declaration = "", rest = ""] = message.split("?>")
    for (const type of ["<!DOCTYPE x>", '<!DOCTYPE x [<!ENTITY a "ha">]>', '<!DOCTYPE x PUBLIC "a" "b">']) {
      expect(refusal(`${declaration}?>${type}${rest}`)).toBe("Client")
    }
    expect(refusal(message.replace("hello", "&b;"))).toBe("Client")
    for (const reference of ["&#0;", "&#x1F;", "&#xD800;", "&#xFFFE;", "&#x110000;", "&#9999999;"]) {
      expect([reference, refusal(message.replace("hello", reference))]).toEqual([reference, "Client"])
    }
    expect(contentOf(message.replace("hello", "&#xFFFD;&#x10FFFF;"))).toEqual({ word: "\uFFFD\u{10FFFF}" })
    expect(contentOf(message.replace("hello", "&lt;&#x41;&#66;"))).toEqual({ word: "<AB" })
  })
})

test("elements go by their namespace, not by their prefix", () => {
  const foreign = `<?xml version="1.0"?><S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Header><w:Id
    xmlns:w="urn:test">7</w:Id></S:Header><S:Body><x:Say xmlns:x="urn:test"><!-- here --><x:word> <![CDATA[<hi>]]> &amp; </x:word>
    </x:Say></S:Body></S:Envelope>`
  const { headers, body } = Result.getOrThrow(read(foreign, ["Id"]))
  expect(headers.map(({ name, namespace, text }) => [namespace, name, text])).toEqual([["urn:test", "Id", "7"]])
  expect([body.namespace, body.name, fields(body)]).toEqual(["urn:test", "Say", { word: "<hi> &" }])
})

test("fields are told once each, in their message's namespace, and are texts", () => {
  const of = (text: string) => fields(Result.getOrThrow(parse(text)))
  expect(of(`<a xmlns="u"><b>1</b><c/></a>`)).toEqual({ b: "1", c: "" })
  expect(of(`<a xmlns="u"><b>1</b><b>2</b></a>`)).toBeUndefined()
  expect(of(`<a xmlns="u"><b><c/></b></a>`)).toBeUndefined()
  expect(of(`<a xmlns="u"><b xmlns="v">1</b></a>`)).toBeUndefined()
})

test("a fault says whose fault it is, why, and in detail", () => {
  const text = writeFault({ code: "Server.Busy", reason: "a < b", namespace, detail: { Why: { code: "Busy" } } })
  const fault = faultOf(Result.getOrThrow(read(text)))
  expect(fault).toMatchObject({ code: "Server.Busy", reason: "a < b" })
  expect(fault?.detail === undefined ? undefined : fields(fault.detail)).toEqual({ code: "Busy" })
  expect(faultOf(Result.getOrThrow(read(write({ namespace, name: "Fault", fields: { x: "1" } }))))).toBeUndefined()
})
