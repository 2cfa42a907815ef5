// Requests to where strangers told us to send them: nothing of ours is reached, and nothing takes longer or more than it may.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Layer } from "effect"
import { isPublic } from "../src/http/PublicAddress.ts"
import { type Address, NotReached, PublicHttp, Resolver } from "../src/http/PublicHttp.ts"

const places: ReadonlyArray<readonly [address: string, isPublic: boolean]> = [
  ["8.8.8.8", true],
  ["172.32.0.1", true],
  ["100.128.0.1", true],
  ["2606:4700::1111", true],
  ["127.0.0.1", false],
  ["127.255.255.254", false],
  ["0.0.0.0", false],
  ["10.1.2.3", false],
  ["172.16.0.1", false],
  ["172.31.255.255", false],
  ["192.168.1.1", false],
  ["100.64.0.1", false],
  // Where clouds tell their machines' credentials.
  ["169.254.169.254", false],
  ["192.0.0.192", false],
  ["198.18.0.1", false],
  ["224.0.0.1", false],
  ["255.255.255.255", false],
  ["::1", false],
  ["::", false],
  ["fe80::1", false],
  ["fd00:ec2::254", false],
  ["ff02::1", false],
  // IPv4 in IPv6: mapped, translated, 6to4, Teredo.
  ["::ffff:127.0.0.1", false],
  ["::ffff:8.8.8.8", false],
  ["64:ff9b::7f00:1", false],
  ["2002:7f00:1::", false],
  ["2001:0:7f00:1::", false],
  ["2001:db8::1", false],
  ["localhost", false],
  ["", false]
]

test.each(places)("%s is public: %p", (address, expected) => {
  expect(isPublic(address)).toBe(expected)
})

const objections: ReadonlyArray<readonly [url: string, reason: string | undefined]> = [
  ["https://hooks.example.com/merkato?key=1", undefined],
  ["https://hooks.example.com:8443/", undefined],
  ["https://8.8.8.8/", undefined],
  ["http://hooks.example.com/", "expected https://"],
  ["ftp://hooks.example.com/", "expected https://"],
  ["file:///etc/passwd", "expected https://"],
  ["hooks.example.com", "not a URL"],
  ["https://user:secret@hooks.example.com/", "no user or password may be in it"],
  ["https://127.0.0.1/", "the address is not a public one"],
  ["https://[::1]/", "the address is not a public one"],
  ["https://[::ffff:10.0.0.1]/", "the address is not a public one"],
  // Other ways to write 127.0.0.1 and 169.254.169.254.
  ["https://2130706433/", "the address is not a public one"],
  ["https://0x7f.1/", "the address is not a public one"],
  ["https://0251.0376.0251.0376/", "the address is not a public one"],
  ["https://127.1/", "the address is not a public one"],
  ["https:example.com", "expected // and a host"],
  ["https:/example.com", "expected // and a host"],
  ["https:///example.com/x", "expected // and a host"],
  ["https:\\\\example.com", "expected // and a host"]
]

const resolving = (answers: ReadonlyArray<ReadonlyArray<Address>>) => {
  let asked = 0
  const layer = Layer.succeed(Resolver, {
    addresses: () => Effect.sync(() => answers[Math.min(asked++, answers.length - 1)] ?? [])
  })
  return { layer, asked: () => asked }
}

const using = <A, E>(
  anywhere: boolean,
  resolver: Layer.Layer<Resolver>,
  use: (http: PublicHttp["Service"]) => Effect.Effect<A, E>
): Promise<A> =>
  Effect.flatMap(PublicHttp, use).pipe(
    Effect.provide(PublicHttp.layerWith(anywhere).pipe(Layer.provide(resolver))),
    Effect.runPromise
  )

test.each(objections)("%s: %p", (url, reason) =>
  using(false, resolving([]).layer, ({ objection }) => Effect.sync(() => expect(objection(url)).toBe(reason)))
)

const v4 = (address: string): Address => ({ address, family: 4 })

/** What came to a server, and what it answers. */
const server = (hostname: string, port: number) => {
  const got: Array<{ readonly host: string | null; readonly path: string; readonly body: string }> = []
  let release: () => void = () => undefined
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const running = Bun.serve({
    hostname,
    port,
    fetch: async (request): Promise<Response> => {
      const { pathname } = new URL(request.url)
      got.push({ host: request.headers.get("host"), path: pathname, body: await request.text() })
      if (pathname === "/elsewhere")
        return Response.redirect(`http://127.0.0.2:${new URL(request.url).port}/secret`, 302)
      if (pathname === "/much") return new Response("x".repeat(8_000_000))
      if (pathname === "/silent") await held
      return new Response(`from ${hostname}\u0000`, { status: 202, headers: { "retry-after": "7" } })
    }
  })
  return {
    port: running.port ?? 0,
    got,
    stop: async () => {
      release()
      await running.stop(true)
    }
  }
}

const outside = server("127.0.0.1", 0)
/** Another machine, at the same port. */
const inside = server("127.0.0.2", outside.port)
afterAll(() => Promise.all([outside.stop(), inside.stop()]))

const to = (path: string, timeoutMs = 30_000) => ({
  url: `http://hooks.example.test:${outside.port}${path}`,
  headers: { "content-type": "application/json" },
  body: "{}",
  timeoutMs
})

describe("a name", () => {
  test("is asked for once, and the request goes to the address that was looked at", async () => {
    const { layer, asked } = resolving([[v4("127.0.0.1")], [v4("127.0.0.2")]])
    const before = outside.got.length
    const answer = await using(true, layer, ({ post }) => post(to("/hook")))
    expect(answer).toEqual({ status: 202, retryAfter: "7", body: "from 127.0.0.1" })
    expect(asked()).toBe(1)
    expect(outside.got.slice(before)).toEqual([
      { host: `hooks.example.test:${outside.port}`, path: "/hook", body: "{}" }
    ])
    expect(inside.got).toEqual([])
  })

  test("that stands for something private is not reached, in whatever company", async () => {
    for (const addresses of [[v4("127.0.0.1")], [v4("8.8.8.8"), v4("10.0.0.1")], [{ address: "::1", family: 6 }], []]) {
      const { layer } = resolving([addresses])
      const url = `https://hooks.example.test:${outside.port}/`
      const before = outside.got.length
      const refused = await using(false, layer, ({ post }) => Effect.flip(post({ ...to("/"), url })))
      expect(refused.reason).toMatch(/not at a public address|cannot be resolved/)
      expect(outside.got.length).toBe(before)
    }
  })
})

test("a redirect is an answer, and nobody goes there", async () => {
  const { layer } = resolving([[v4("127.0.0.1")]])
  expect((await using(true, layer, ({ post }) => post(to("/elsewhere")))).status).toBe(302)
  expect(inside.got).toEqual([])
})

test("of a long answer only the beginning is read", async () => {
  const { layer } = resolving([[v4("127.0.0.1")]])
  const { status, body } = await using(true, layer, ({ post }) => post(to("/much")))
  expect([status, body.length]).toEqual([200, 16_384])
})

test("who does not answer, or takes no connection, is not waited for", async () => {
  const { layer } = resolving([[v4("127.0.0.1")]])
  const silent = await using(true, layer, ({ post }) => Effect.flip(post(to("/silent", 50))))
  expect(silent).toEqual(new NotReached({ reason: "no answer within 50 ms" }))
  const closed = server("127.0.0.1", 0)
  await closed.stop()
  const url = `http://hooks.example.test:${closed.port}/`
  const refused = await using(true, layer, ({ post }) => Effect.flip(post({ ...to("/"), url })))
  expect(refused.reason).toContain("no answer: ")
})
