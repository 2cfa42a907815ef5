import { afterEach, describe, expect, test } from "bun:test"
import { Cause, Context, Deferred, Effect, Exit, Layer, Logger, Option, Schedule, Scope, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerError, HttpServerRequest, HttpServerResponse } from "effect/http"
import { NetAddress } from "effect/net"
import { connect } from "node:net"
import { AtHand } from "../src/http/AtHand.ts"
import * as BunHttpServer from "../src/http/BunHttpServer.ts"

type App = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  unknown,
  HttpServerRequest.HttpServerRequest | Scope.Scope
>
type Options = Partial<BunHttpServer.Options>

const running: Array<() => Promise<void>> = []
afterEach(async () => {
  await Promise.all(running.splice(0).map((stop) => stop()))
})

interface Running {
  readonly url: string
  readonly port: number
  readonly status: BunHttpServer.ServerStatus
  /** Closes the scope: the server drains. */
  readonly stop: () => Promise<void>
}

const startLayer = async (
  serving: Layer.Layer<never, never, HttpServer.HttpServer>,
  options: Options = {}
): Promise<Running> => {
  const scope = Scope.makeUnsafe()
  const layer = Layer.provideMerge(
    serving,
    BunHttpServer.layer({ port: 0, drainTimeout: "1 second", ...options })
  ).pipe(Layer.provide(Logger.layer([])))
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  const { address } = Context.get(context, HttpServer.HttpServer)
  if (!NetAddress.isInetAddress(address)) throw new Error("expected an internet address")
  const stop = () => Effect.runPromise(Scope.close(scope, Exit.void))
  running.push(stop)
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    status: Context.get(context, BunHttpServer.ServerStatus),
    stop
  }
}
/** Handlers can be interrupted, as HttpRouter's are. */
const start = (app: App, options?: Options) => startLayer(HttpServer.serve(Effect.interruptible(app)), options)

const ok = Effect.succeed(HttpServerResponse.text("ok"))
const bodyOf = HttpServerRequest.HttpServerRequest.use((request) =>
  Effect.map(request.arrayBuffer, (body) => HttpServerResponse.text(`${body.byteLength} bytes`))
)

/** A keep-alive connection that reads answers with a Content-Length, one after the other. */
class Client {
  private received = ""
  private isClosed = false
  private readonly socket
  private changed: () => void = () => {}
  constructor(port: number) {
    this.socket = connect(port, "127.0.0.1")
    this.socket.on("data", (data) => {
      this.received += data.toString("latin1")
      this.changed()
    })
    this.socket.on("error", () => {})
    this.socket.on("close", () => {
      this.isClosed = true
      this.changed()
    })
  }
  send(...parts: ReadonlyArray<string>) {
    for (const part of parts) this.socket.write(part)
  }
  get(path: string) {
    this.send(`GET ${path} HTTP/1.1\r\nHost: shop\r\n\r\n`)
  }
  async until(done: () => boolean): Promise<void> {
    while (!done() && !this.isClosed) {
      await new Promise<void>((resolve) => {
        this.changed = resolve
      })
    }
  }
  async answer(): Promise<{ status: number; head: string; body: string }> {
    let head = ""
    await this.until(() => {
      const end = this.received.indexOf("\r\n\r\n")
      if (end === -1) return false
      head = this.received.slice(0, end)
      return this.received.length >= end + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
    })
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
    const body = this.received.slice(head.length + 4, head.length + 4 + length)
    this.received = this.received.slice(head.length + 4 + length)
    return { status: Number(head.slice(9, 12)), head: head.toLowerCase(), body }
  }
  closed(): Promise<void> {
    return this.until(() => false)
  }
  get unread(): string {
    return this.received
  }
  destroy() {
    this.socket.destroy()
  }
}

const tooLarge = {
  type: "about:blank",
  status: 413,
  code: "payload_too_large",
  title: "Content Too Large",
  detail: "The request's body is larger than 1000 bytes."
}
const drainingProblem = {
  type: "about:blank",
  status: 503,
  code: "draining",
  title: "Service Unavailable",
  detail: "The server is stopping and takes no new requests."
}
const internalProblem = {
  type: "about:blank",
  status: 500,
  code: "internal",
  title: "Internal Server Error",
  detail: "Something went wrong on our side; it has been logged."
}

describe("requests and answers", () => {
  test("a JSON route is answered, with its headers and cookies", async () => {
    const routes = HttpRouter.add(
      "POST",
      "/products/:id",
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const { id } = yield* HttpRouter.params
        const answer = yield* HttpServerResponse.json(
          {
            id,
            body: yield* request.json,
            again: yield* request.text,
            accept: request.headers["accept"],
            method: request.method,
            url: request.url,
            remote: Option.getOrNull(request.remoteAddress),
            cookies: request.cookies
          },
          { status: 201, headers: { "x-kind": "test" } }
        )
        return HttpServerResponse.setCookieUnsafe(answer, "cart", "C1")
      })
    )
    const { url } = await startLayer(HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }))
    const response = await fetch(`${url}/products/P1?full=1`, {
      method: "POST",
      body: `{"qty":2}`,
      headers: { accept: "application/json", cookie: "a=1; b=2" }
    })
    expect(response.status).toBe(201)
    expect(response.headers.get("content-type")).toBe("application/json")
    expect(response.headers.get("x-kind")).toBe("test")
    expect(response.headers.getSetCookie()).toEqual(["cart=C1"])
    expect(await response.json()).toEqual({
      id: "P1",
      body: { qty: 2 },
      again: `{"qty":2}`,
      accept: "application/json",
      method: "POST",
      url: "/products/P1?full=1",
      remote: "127.0.0.1",
      cookies: { a: "1", b: "2" }
    })
  })

  test("HEAD is answered with the headers of GET and no body, streams included", async () => {
    let pulled = 0
    const { port } = await start(
      HttpServerRequest.HttpServerRequest.use((request) =>
        Effect.succeed(
          request.url === "/stream"
            ? HttpServerResponse.stream(Stream.fromEffect(Effect.sync(() => new Uint8Array(++pulled))), {
                headers: { etag: "e1" }
              })
            : HttpServerResponse.jsonUnsafe({ a: 1 })
        )
      )
    )
    const client = new Client(port)
    client.send("HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n")
    await client.until(() => client.unread.endsWith("\r\n\r\n"))
    expect(client.unread).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    expect(client.unread.toLowerCase()).toContain("content-length: 7\r\n")
    expect(client.unread.toLowerCase()).toContain("content-type: application/json\r\n")
    client.destroy()
    const response = await fetch(`http://127.0.0.1:${port}/stream`, { method: "HEAD" })
    expect([response.status, response.headers.get("etag"), await response.text()]).toEqual([200, "e1", ""])
    expect(pulled).toBe(0)
  })

  test("an answer whose status allows no body has none, whatever the handler gave", async () => {
    const { port } = await start(
      HttpServerRequest.HttpServerRequest.use((request) =>
        Effect.succeed(
          HttpServerResponse.text("body", { status: Number(request.url.slice(1)), headers: { etag: "e1" } })
        )
      )
    )
    for (const status of [204, 304]) {
      const client = new Client(port)
      client.get(`/${status}`)
      await client.until(() => client.unread.includes("\r\n\r\n"))
      client.get("/204")
      await client.until(() => client.unread.split("\r\n\r\n").length === 3)
      expect(client.unread).toMatch(new RegExp(`^HTTP/1.1 ${status} .*\\r\\n\\r\\nHTTP/1.1 204 .*\\r\\n\\r\\n$`, "s"))
      expect(client.unread.toLowerCase()).toContain("etag: e1")
      client.destroy()
    }
  })

  test("a streamed response arrives while it is still being made", async () => {
    const more = Deferred.makeUnsafe<void>()
    const events = Stream.concat(
      Stream.make("data: 1\n\n"),
      Stream.fromEffect(Effect.as(Deferred.await(more), "data: 2\n\n"))
    )
    const { url, status } = await start(
      Effect.succeed(HttpServerResponse.stream(Stream.encodeText(events), { contentType: "text/event-stream" }))
    )
    const response = await fetch(url)
    expect(response.headers.get("content-type")).toBe("text/event-stream")
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader?.read())?.value).toBe("data: 1\n\n")
    expect(await Effect.runPromise(status.inFlight)).toBe(1)
    await Effect.runPromise(Deferred.succeed(more, undefined))
    expect((await reader?.read())?.value).toBe("data: 2\n\n")
    expect((await reader?.read())?.done).toBe(true)
    expect(await Effect.runPromise(status.inFlight)).toBe(0)
  })

  test("a stream that fails breaks the connection, so that a part is not taken for the whole", async () => {
    const { url } = await start(
      Effect.succeed(
        HttpServerResponse.stream(
          Stream.encodeText(Stream.concat(Stream.make("one"), Stream.fail(new Error("lost the database"))))
        )
      )
    )
    expect(fetch(url).then((response) => response.text())).rejects.toThrow()
  })

  test("what was released with the request's scope is released once the stream has ended", async () => {
    const released: Array<string> = []
    const { url } = await start(
      Effect.gen(function* () {
        yield* Effect.addFinalizer(() => Effect.sync(() => released.push("scope")))
        const stream = Stream.make("a", "b").pipe(Stream.onEnd(Effect.sync(() => released.push("stream"))))
        return HttpServerResponse.stream(Stream.encodeText(stream))
      })
    )
    expect(await (await fetch(url)).text()).toBe("ab")
    expect(released).toEqual(["stream", "scope"])
  })

  test("a request without a handler yet is told that the server is starting", async () => {
    const { port } = await startLayer(Layer.empty)
    const response = await fetch(`http://127.0.0.1:${port}/`)
    expect(await response.json()).toMatchObject({ status: 503, code: "starting" })
  })

  test("an error without a body is answered with a problem", async () => {
    const { url } = await startLayer(HttpRouter.serve(Layer.empty, { disableLogger: true, disableListenLog: true }))
    const response = await fetch(`${url}/nowhere`)
    expect(response.headers.get("content-type")).toBe("application/problem+json")
    expect(await response.json()).toEqual({
      type: "about:blank",
      status: 404,
      code: "not_found",
      title: "Not Found",
      detail: "There is nothing at this path."
    })
  })

  test("headers beyond their limit are refused with 431, nonsense with 400", async () => {
    const withHeader = async (port: number, size: number) => {
      const client = new Client(port)
      client.send(`GET / HTTP/1.1\r\nHost: shop\r\nx: ${"x".repeat(size)}\r\n\r\n`)
      const { status } = await client.answer()
      client.destroy()
      return status
    }
    const { port: low } = await start(ok, { maxHeaderBytes: 8_000 })
    expect([await withHeader(low, 7_000), await withHeader(low, 9_000)]).toEqual([200, 431])
    // The limit is the process's: this server brings back the usual one.
    const { port } = await start(ok, { maxHeaderBytes: 16 * 1024 })
    expect([await withHeader(port, 15_000), await withHeader(port, 17_000)]).toEqual([200, 431])
    const broken = new Client(port)
    broken.send("BREAD AND BUTTER\r\n\r\n")
    expect((await broken.answer()).status).toBe(400)
  })
})

describe("the limit of a request's body", () => {
  const chunk = (size: number) => `${size.toString(16)}\r\n${"x".repeat(size)}\r\n`
  const chunkedHead = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"

  test("a Content-Length beyond it is 413 before the handler runs", async () => {
    let calls = 0
    const { url } = await start(
      Effect.suspend(() => {
        calls++
        return bodyOf
      }),
      { maxBodyBytes: 1000, problemHeaders: (request) => ({ "correlation-id": request.headers.get("x-id") ?? "" }) }
    )
    const response = await fetch(url, { method: "POST", body: "x".repeat(1001), headers: { "x-id": "C1" } })
    expect(response.status).toBe(413)
    expect(response.headers.get("content-type")).toBe("application/problem+json")
    expect(response.headers.get("correlation-id")).toBe("C1")
    expect(await response.json()).toEqual(tooLarge)
    expect(calls).toBe(0)
    expect(await (await fetch(url, { method: "POST", body: "x".repeat(1000) })).text()).toBe("1000 bytes")
  })

  test("a chunked body beyond it is 413 as soon as it is read, and the connection ends", async () => {
    const { port } = await start(bodyOf, { maxBodyBytes: 1000 })
    const client = new Client(port)
    client.send(chunkedHead, chunk(600), chunk(600))
    const answer = await client.answer()
    expect(answer.status).toBe(413)
    expect(answer.head).toContain("content-type: application/problem+json")
    expect(JSON.parse(answer.body)).toEqual(tooLarge)
    await client.closed()

    const within = new Client(port)
    within.send(chunkedHead, chunk(600), chunk(400), "0\r\n\r\n")
    expect((await within.answer()).body).toBe("1000 bytes")
    within.destroy()
  })

  test("a chunked body beyond it is 413 when it is streamed, whatever the handler makes of the failure", async () => {
    const { port } = await start(
      HttpServerRequest.HttpServerRequest.use((request) =>
        Stream.runCount(request.stream).pipe(
          Effect.map((count) => HttpServerResponse.text(`${count} chunks`)),
          Effect.orElseSucceed(() => HttpServerResponse.text("never mind", { status: 400 }))
        )
      ),
      { maxBodyBytes: 1000 }
    )
    const client = new Client(port)
    client.send(chunkedHead, chunk(600), chunk(600))
    expect((await client.answer()).status).toBe(413)
    client.destroy()
  })

  test("a body is read once for all who ask", async () => {
    const { url } = await start(
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const first = yield* request.text
        const second = yield* request.modify({ url: "/other" }).text
        const third = yield* Stream.mkUint8Array(request.stream)
        return HttpServerResponse.text(`${first} ${second} ${third.byteLength}`)
      })
    )
    expect(await (await fetch(url, { method: "POST", body: "Bär" })).text()).toBe("Bär Bär 4")
  })
})

describe("WebSockets", () => {
  const echo = Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const socket = yield* request.upgradeWith({ headers: { "x-shard": "7" } })
    const { pull } = yield* socket.reader
    const { writeAll } = yield* socket.writer
    return yield* Effect.forever(Effect.flatMap(pull, writeAll))
  }).pipe(Effect.catchTag("SocketError", () => Effect.succeed(HttpServerResponse.empty())))
  const next = (socket: WebSocket, event: string) =>
    new Promise<Event>((resolve) => {
      socket.addEventListener(event, resolve, { once: true })
    })
  const nextMessage = async (socket: WebSocket) => {
    const event = await next(socket, "message")
    return event instanceof MessageEvent ? event.data : undefined
  }

  test("messages come back as they were sent, text and bytes, and the end is seen on both sides", async () => {
    const { url, status } = await start(echo)
    const socket = new WebSocket(url.replace("http", "ws"))
    socket.binaryType = "arraybuffer"
    await next(socket, "open")
    socket.send("bread")
    expect(await nextMessage(socket)).toBe("bread")
    socket.send(new Uint8Array([1, 2, 3]))
    expect(new Uint8Array(await nextMessage(socket))).toEqual(new Uint8Array([1, 2, 3]))
    socket.send("")
    expect(await nextMessage(socket)).toBe("")
    expect(await Effect.runPromise(status.inFlight)).toBe(1)
    socket.close(1000)
    await next(socket, "close")
    await eventually(() => Effect.runSync(status.inFlight) === 0)
  })

  test("what is no handshake is refused as a bad request", async () => {
    const { url } = await start(echo)
    const response = await fetch(url)
    expect(await response.json()).toMatchObject({ status: 400, code: "bad_request" })
  })

  test("a handler that ends closes its socket, one that fails says so", async () => {
    const { url } = await start(
      HttpServerRequest.HttpServerRequest.use((request) =>
        Effect.flatMap(request.upgrade, () =>
          request.url === "/fail" ? Effect.die(new Error("no")) : Effect.succeed(HttpServerResponse.empty())
        )
      )
    )
    const codeOf = async (path: string) => {
      const event = await next(new WebSocket(url.replace("http", "ws") + path), "close")
      return event instanceof CloseEvent ? event.code : undefined
    }
    expect(await codeOf("/done")).toBe(1000)
    expect(await codeOf("/fail")).toBe(1011)
  })

  const handshake = (path = "/") =>
    `GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`

  test("a writer waits for a client that does not read, and goes on when it does", async () => {
    const message = new Uint8Array(256 * 1024)
    const messages = 100
    let written = 0
    const { port } = await start(
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        const { write } = yield* socket.writer
        yield* Effect.repeat(
          Effect.tap(write(message), () => Effect.sync(() => written++)),
          Schedule.recurs(messages - 1)
        )
        yield* write("done")
        const { pull } = yield* socket.reader
        return yield* Effect.forever(pull)
      }).pipe(Effect.catchTag("SocketError", () => ok))
    )
    let received = 0
    const client = connect(port, "127.0.0.1", () => client.write(handshake()))
    client.pause()
    await eventually(() => written > 0)
    await Bun.sleep(200)
    const stalled = written
    expect(stalled).toBeLessThan(messages)
    client.on("data", (data) => {
      received += data.length
    })
    client.resume()
    await eventually(() => received > messages * message.byteLength)
    expect(written).toBe(messages)
    client.destroy()
  })

  test("a client that sends faster than the handler reads is made to wait, and nothing is lost", async () => {
    const read = Deferred.makeUnsafe<void>()
    let size = 0
    const { url } = await start(
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        const { pull } = yield* socket.reader
        yield* Deferred.await(read)
        return yield* Effect.forever(
          Effect.tap(pull, (chunks) =>
            Effect.sync(() => {
              for (const chunk of chunks) size += chunk.length
            })
          )
        )
      }).pipe(Effect.catchTag("SocketError", () => ok))
    )
    const socket = new WebSocket(url.replace("http", "ws"))
    await next(socket, "open")
    const messages = 400
    for (let i = 0; i < messages; i++) socket.send(new Uint8Array(64 * 1024))
    await Bun.sleep(200)
    expect(socket.bufferedAmount).toBeGreaterThan(0)
    await Effect.runPromise(Deferred.succeed(read, undefined))
    await eventually(() => size === messages * 64 * 1024)
    socket.close()
  })

  test("a client that vanishes interrupts a handler that is busy elsewhere", async () => {
    const exited = Deferred.makeUnsafe<Exit.Exit<unknown, unknown>>()
    const { port, status } = await start(
      HttpServerRequest.HttpServerRequest.use((request) => Effect.andThen(request.upgrade, Effect.never)).pipe(
        Effect.onExit((exit) => Deferred.succeed(exited, exit))
      )
    )
    const client = new Client(port)
    client.send(handshake())
    await client.until(() => client.unread.includes("101"))
    client.destroy()
    expect(isClientAbort(await Effect.runPromise(Deferred.await(exited)))).toBe(true)
    await eventually(() => Effect.runSync(status.inFlight) === 0)
  })

  test("draining closes sockets with 1001, and a client that ignores it does not hold the server up", async () => {
    const seen: Array<number> = []
    const { url, port, stop } = await start(
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        const { pull } = yield* socket.reader
        return yield* Effect.forever(pull)
      }).pipe(
        Effect.catchTag("SocketError", (error) => {
          if (error.reason._tag === "SocketCloseError") seen.push(error.reason.code)
          return ok
        })
      )
    )
    const socket = new WebSocket(url.replace("http", "ws"))
    const deaf = new Client(port)
    deaf.send(handshake())
    await next(socket, "open")
    await deaf.until(() => deaf.unread.includes("101"))
    const [event, took] = await Promise.all([next(socket, "close"), timed(stop())])
    expect(event instanceof CloseEvent ? event.code : undefined).toBe(1001)
    expect(seen).toEqual([1001, 1001])
    expect(took).toBeLessThan(1800)
    deaf.destroy()
  })
})

describe("a client that disconnects", () => {
  test("interrupts its handler, and the interruption says why", async () => {
    const began = Deferred.makeUnsafe<void>()
    const exited = Deferred.makeUnsafe<Exit.Exit<unknown, unknown>>()
    const { port, status } = await start(
      Deferred.succeed(began, undefined).pipe(
        Effect.andThen(Effect.never),
        Effect.onExit((exit) => Deferred.succeed(exited, exit))
      )
    )
    const client = new Client(port)
    client.get("/")
    await Effect.runPromise(Deferred.await(began))
    client.destroy()
    expect(isClientAbort(await Effect.runPromise(Deferred.await(exited)))).toBe(true)
    await eventually(() => Effect.runSync(status.inFlight) === 0)
  })

  test("interrupts the stream it was reading", async () => {
    const ended = Deferred.makeUnsafe<void>()
    const ticks = Stream.fromSchedule(Schedule.spaced("10 millis")).pipe(
      Stream.map((n) => `data: ${n}\n\n`),
      Stream.ensuring(Deferred.succeed(ended, undefined))
    )
    const { port, status } = await start(Effect.succeed(HttpServerResponse.stream(Stream.encodeText(ticks))))
    const client = new Client(port)
    client.get("/")
    await client.until(() => client.unread.includes("data: 2"))
    client.destroy()
    await Effect.runPromise(Deferred.await(ended))
    await eventually(() => Effect.runSync(status.inFlight) === 0)
  })
})

describe("a handler's defect", () => {
  test("is answered with a problem that tells nothing, and its cause is logged", async () => {
    const logged: Array<{ level: string; cause: string }> = []
    const logger = Logger.layer([
      Logger.make(({ cause, logLevel }) => {
        logged.push({ level: logLevel, cause: Cause.pretty(cause) })
      })
    ])
    const app = HttpServerRequest.HttpServerRequest.use((request) =>
      request.url === "/refused"
        ? Effect.fail(new HttpServerError.RouteNotFound({ request }))
        : Effect.andThen(request.url === "/slow" ? Effect.sleep(20) : Effect.void, Effect.die(new Error("secret")))
    )
    const { url } = await startLayer(HttpServer.serve(app).pipe(Layer.provide(logger)))
    for (const path of ["/at-once", "/slow"]) {
      const response = await fetch(url + path)
      expect(response.status).toBe(500)
      expect(response.headers.get("content-type")).toBe("application/problem+json")
      const text = await response.text()
      expect(JSON.parse(text)).toEqual(internalProblem)
    }
    expect((await fetch(`${url}/refused`)).status).toBe(404)
    expect(logged.map(({ level }) => level)).toEqual(["Error", "Error"])
    for (const { cause } of logged) expect(cause).toContain("Error: secret")
  })

  test("an answer that HTTP cannot carry is a 500 too", async () => {
    const { url, status } = await start(
      HttpServerRequest.HttpServerRequest.use((request) =>
        Effect.succeed(
          request.url === "/status"
            ? HttpServerResponse.text("what", { status: 1000 })
            : request.url === "/stream"
              ? HttpServerResponse.stream(Stream.never, { status: 1000 })
              : HttpServerResponse.text("what", { headers: { "x-bad": "a\r\nset-cookie: evil=1" } })
        )
      )
    )
    for (const path of ["/status", "/stream", "/header"]) {
      const response = await fetch(url + path)
      expect([response.status, response.headers.get("set-cookie")]).toEqual([500, null])
    }
    expect(await Effect.runPromise(status.inFlight)).toBe(0)
  })
})

describe("listening", () => {
  test("a port in use is a ServeError that says so", async () => {
    const { port } = await start(ok)
    const exit = await Effect.runPromiseExit(Effect.scoped(BunHttpServer.make({ port })))
    const error = Option.getOrThrow(Exit.findErrorOption(exit))
    expect(error).toBeInstanceOf(HttpServerError.ServeError)
    expect(String(error.cause)).toBe(`Error: Port ${port} is in use: cannot listen on 127.0.0.1:${port}`)
  })

  test("a hostname that is no address is a ServeError", async () => {
    const exit = await Effect.runPromiseExit(Effect.scoped(BunHttpServer.make({ port: 0, hostname: "shop.example" })))
    expect(Option.getOrThrow(Exit.findErrorOption(exit))).toBeInstanceOf(HttpServerError.ServeError)
  })

  test("several servers share a port when asked to", async () => {
    const { port } = await start(ok, { reusePort: true })
    const second = await start(ok, { port, reusePort: true })
    expect(second.port).toBe(port)
    await second.stop()
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200)
  })

  test("the scope's end frees the port", async () => {
    const { port, stop } = await start(ok)
    await stop()
    expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow()
    expect((await start(ok, { port })).port).toBe(port)
  })
})

describe("answers at hand", () => {
  const offered = Layer.effectDiscard(
    Effect.flatMap(AtHand, ({ offer }) =>
      offer((request) => (request.url.endsWith("/known") ? new Response("at hand") : undefined))
    )
  )
  const handler = HttpServer.serve(Effect.succeed(HttpServerResponse.text("handled")))
  const asked = async (url: string, method = "GET") => (await fetch(url, { method })).text()

  test("are for GET and HEAD, and everything else is handled", async () => {
    const { url } = await startLayer(Layer.merge(handler, offered))
    const told = [await asked(`${url}/known`), await asked(`${url}/other`), await asked(`${url}/known`, "POST")]
    expect(told).toEqual(["at hand", "handled", "handled"])
    const head = await fetch(`${url}/known`, { method: "HEAD" })
    expect([head.headers.get("content-length"), await head.text()]).toEqual(["7", ""])
  })

  test("are given until their scope closes", async () => {
    const scope = Scope.makeUnsafe()
    const here = Layer.effectDiscard(
      Effect.contextWith((context: Context.Context<never>) =>
        Layer.buildWithScope(offered, scope).pipe(Effect.provide(context))
      )
    )
    const { url } = await startLayer(Layer.merge(handler, here))
    expect(await asked(`${url}/known`)).toBe("at hand")
    await Effect.runPromise(Scope.close(scope, Exit.void))
    expect(await asked(`${url}/known`)).toBe("handled")
  })

  test("are refused like everything else once the server drains", async () => {
    const finish = Deferred.makeUnsafe<void>()
    const slow = HttpServer.serve(Effect.as(Deferred.await(finish), HttpServerResponse.text("handled")))
    const server = await startLayer(Layer.merge(slow, offered), { drainTimeout: "5 seconds" })
    const working = new Client(server.port)
    const waiting = new Client(server.port)
    waiting.get("/known")
    expect(await waiting.answer()).toMatchObject({ status: 200, body: "at hand" })
    working.get("/slow")
    await eventually(() => Effect.runSync(server.status.inFlight) === 1)
    const stopped = server.stop()
    await Effect.runPromise(server.status.awaitDraining)
    await Bun.sleep(20)
    waiting.get("/known")
    expect((await waiting.answer()).status).toBe(503)
    await Effect.runPromise(Deferred.succeed(finish, undefined))
    expect(await working.answer()).toMatchObject({ status: 200, body: "handled" })
    await stopped
  })
})

describe("draining", () => {
  const slow = (finish: Deferred.Deferred<void>): App =>
    HttpServerRequest.HttpServerRequest.use((request) =>
      request.url === "/slow" ? Effect.andThen(Deferred.await(finish), ok) : ok
    )
  const inFlight = (server: Running, count: number) =>
    eventually(() => Effect.runSync(server.status.inFlight) === count)

  test("answers what is in flight and refuses the rest, then the listener is gone", async () => {
    const finish = Deferred.makeUnsafe<void>()
    const server = await start(slow(finish), { drainTimeout: "5 seconds" })
    const working = new Client(server.port)
    const waiting = new Client(server.port)
    waiting.get("/")
    expect((await waiting.answer()).status).toBe(200)
    working.get("/slow")
    await inFlight(server, 1)
    expect(await Effect.runPromise(server.status.isDraining)).toBe(false)

    const stopped = server.stop()
    await Effect.runPromise(server.status.awaitDraining)
    expect(await Effect.runPromise(server.status.isDraining)).toBe(true)
    await Bun.sleep(20)
    waiting.get("/")
    const refused = await waiting.answer()
    expect(refused.status).toBe(503)
    expect(refused.head).toContain("connection: close")
    expect(refused.head).toContain("retry-after: 1")
    expect(refused.head).toContain("content-type: application/problem+json")
    expect(JSON.parse(refused.body)).toEqual(drainingProblem)
    await waiting.closed()

    await Effect.runPromise(Deferred.succeed(finish, undefined))
    expect(await working.answer()).toMatchObject({ status: 200, body: "ok" })
    await stopped
    expect(fetch(server.url)).rejects.toThrow()
  })

  test("keeps the probes reachable and lets them tell", async () => {
    const finish = Deferred.makeUnsafe<void>()
    const readyz = Effect.gen(function* () {
      const status = yield* BunHttpServer.ServerStatus
      return HttpServerResponse.text((yield* status.isDraining) ? "draining" : "ready", {
        status: (yield* status.isDraining) ? 503 : 200
      })
    })
    const server = await start(
      HttpServerRequest.HttpServerRequest.use((request) => (request.url.startsWith("/readyz") ? readyz : slow(finish)))
    )
    expect(await (await fetch(`${server.url}/readyz`)).text()).toBe("ready")
    const working = new Client(server.port)
    working.get("/slow")
    await inFlight(server, 1)
    const stopped = server.stop()
    await Bun.sleep(20)
    const probe = await fetch(`${server.url}/readyz?verbose`)
    expect([probe.status, await probe.text()]).toEqual([503, "draining"])
    await Effect.runPromise(Deferred.succeed(finish, undefined))
    expect((await working.answer()).status).toBe(200)
    await stopped
  })

  test("goes on serving for drainDelay, so that load balancers notice first", async () => {
    const server = await start(ok, { drainDelay: "300 millis" })
    const stopped = timed(server.stop())
    await Effect.runPromise(server.status.awaitDraining)
    expect((await fetch(server.url)).status).toBe(200)
    expect(await stopped).toBeGreaterThanOrEqual(290)
  })

  test("interrupts at its deadline what has not finished, which is told so", async () => {
    const server = await start(Effect.never, { drainTimeout: "200 millis" })
    const client = new Client(server.port)
    client.get("/")
    await inFlight(server, 1)
    const took = await timed(server.stop())
    expect(took).toBeGreaterThanOrEqual(190)
    expect(took).toBeLessThan(700)
    const answer = await client.answer()
    expect([answer.status, JSON.parse(answer.body).code]).toEqual([503, "draining"])
  })

  test("does not wait for what cannot be interrupted", async () => {
    const server = await start(Effect.uninterruptible(Effect.never), { drainTimeout: "100 millis" })
    const client = new Client(server.port)
    client.get("/")
    await inFlight(server, 1)
    expect(await timed(server.stop())).toBeLessThan(900)
    await client.closed()
  })

  test("cuts endless streams off at its deadline, unless they end themselves", async () => {
    const ended: Array<string> = []
    const ticks = (name: string) =>
      Stream.fromSchedule(Schedule.spaced("10 millis")).pipe(
        Stream.map((n) => `data: ${n}\n\n`),
        Stream.ensuring(Effect.sync(() => ended.push(name)))
      )
    const polite = await start(
      Effect.gen(function* () {
        const { awaitDraining } = yield* BunHttpServer.ServerStatus
        return HttpServerResponse.stream(Stream.encodeText(Stream.interruptWhen(ticks("polite"), awaitDraining)))
      }),
      { drainTimeout: "5 seconds" }
    )
    const stubborn = await start(Effect.succeed(HttpServerResponse.stream(Stream.encodeText(ticks("stubborn")))), {
      drainTimeout: "200 millis"
    })
    for (const server of [polite, stubborn]) {
      const client = new Client(server.port)
      client.get("/")
      await client.until(() => client.unread.includes("data: 2"))
      const took = await timed(server.stop())
      expect(took).toBeLessThan(900)
      await client.closed()
      expect(client.unread.endsWith("0\r\n\r\n")).toBe(server === polite)
    }
    await eventually(() => ended.length === 2)
    expect(ended).toEqual(["polite", "stubborn"])
  })

  test("handlers are done before what they stand on is released", async () => {
    const order: Array<string> = []
    class Database extends Context.Service<Database, string>()("test/Database") {
      static readonly layer = Layer.effect(
        Database,
        Effect.acquireRelease(Effect.succeed("database"), () => Effect.sync(() => order.push("released")))
      )
    }
    const app = Effect.gen(function* () {
      const database = yield* Database
      yield* Effect.sleep(100)
      order.push(`used ${database}`)
      return HttpServerResponse.empty()
    })
    const server = await startLayer(HttpServer.serve(app).pipe(Layer.provide(Database.layer)))
    const client = new Client(server.port)
    client.get("/")
    await inFlight(server, 1)
    await server.stop()
    expect(order).toEqual(["used database", "released"])
    expect((await client.answer()).status).toBe(204)
  })
})

const isClientAbort = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some(
    (reason) => reason._tag === "Interrupt" && reason.annotations.has(HttpServerError.ClientAbort.key)
  )

const timed = async (promise: Promise<unknown>): Promise<number> => {
  const began = performance.now()
  await promise
  return performance.now() - began
}

const eventually = async (holds: () => boolean): Promise<void> => {
  for (let tries = 0; !holds(); tries++) {
    if (tries === 200) throw new Error("it did not come true within 2 s")
    await Bun.sleep(10)
  }
}
