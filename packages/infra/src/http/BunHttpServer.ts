/**
 * Effect's `HttpServer` on `Bun.serve`. To be dropped when a platform-bun for effect 4.x is published: rc.117 imports
 * paths that 4.1.0 no longer has.
 *
 * What Bun decides before any handler runs, with an empty body and `connection: close`: a malformed request is 400, a
 * header block over `maxHeaderBytes` or of about 200 headers is 431, headers that trickle in for more than about 12 s
 * end the connection. A request pipelined behind one that is still being answered closes the connection too.
 */
import { Cause, Context, Deferred, Effect, type FileSystem, Layer, Option, type Path, Result, type Scope } from "effect"
import {
  type Etag,
  HttpEffect,
  type HttpPlatform,
  HttpServer,
  HttpServerError,
  HttpServerRequest,
  type HttpServerResponse
} from "effect/http"
import { NetAddress } from "effect/net"
import http from "node:http"
import { AtHand, Offers } from "./AtHand.ts"
import { BunRequest } from "./BunRequest.ts"
import { type Answer, Exchange, type Handler, pathOf, type Server } from "./Exchange.ts"
import { drainAndStop, Lifecycle } from "./ServerLifecycle.ts"
import { type Limits, limitsOf, type Options } from "./ServerOptions.ts"
import { draining, internal, payloadTooLarge, problem, starting } from "./ServerProblems.ts"
import { Connection } from "./WebSocketConnection.ts"

export type { Options } from "./ServerOptions.ts"

/** Whether the server still takes work. Requests find it in their context; without a server it says "yes". */
export interface ServerStatus {
  readonly isDraining: Effect.Effect<boolean>
  /** Completes when draining begins; an endless response ends itself with it (`Stream.interruptWhen`). */
  readonly awaitDraining: Effect.Effect<void>
  /** Requests that are not yet answered, streamed responses and open WebSockets among them. */
  readonly inFlight: Effect.Effect<number>
}
export const ServerStatus = Context.Reference<ServerStatus>("merkato/http/ServerStatus", {
  defaultValue: () => ({
    isDraining: Effect.succeed(false),
    awaitDraining: Effect.never,
    inFlight: Effect.succeed(0)
  })
})

export interface BunHttpServer extends Context.Service.Shape<typeof HttpServer.HttpServer> {
  readonly status: ServerStatus
  readonly atHand: AtHand
}

/**
 * Listens until the scope closes, or the scope of what it serves. Then it drains: requests in flight are answered, new
 * ones get 503 (the probes excepted), WebSockets are closed with 1001; after `drainTimeout` whoever is left is
 * interrupted and, half a second later, cut off.
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<BunHttpServer, HttpServerError.ServeError, Scope.Scope> {
  const limits = limitsOf(options)
  yield* addressOf(limits.hostname, limits.port)
  const lifecycle = new Lifecycle()
  const atHand = new Offers()
  const runLog = Effect.runForkWith(yield* Effect.context<never>())
  let serve: Handler = (request) => problem(starting, limits.problemHeaders?.(request))

  let server: Server | undefined
  const open = Effect.map(
    listen(
      limits,
      (request, server) => serve(request, server),
      (defect) => {
        runLog(Effect.logError("The HTTP server failed to answer", Cause.die(defect)))
        return problem(internal)
      }
    ),
    (opened) => {
      server = opened
    }
  )
  // Whoever shares a port gets its part of the requests as soon as it listens, and so listens when it can answer them.
  const opensLate = limits.reusePort && limits.port !== 0
  if (!opensLate) yield* open
  const stop = yield* Effect.cached(
    Effect.suspend(() => (server === undefined ? Effect.void : drainAndStop(server, lifecycle, limits)))
  )
  yield* Effect.addFinalizer(() => stop)
  const address = yield* addressOf(limits.hostname, opensLate ? limits.port : server?.port)

  const status: ServerStatus = {
    isDraining: Effect.sync(() => lifecycle.draining),
    awaitDraining: Deferred.await(lifecycle.drainingBegan),
    inFlight: Effect.sync(() => lifecycle.inFlight)
  }
  return {
    status,
    atHand,
    ...HttpServer.make({
      address,
      serve: Effect.fnUntraced(function* (app, middleware) {
        const context = yield* Effect.context<never>()
        const previous = serve
        serve = makeHandler({
          app,
          middleware,
          context: Context.add(context, ServerStatus, status),
          lifecycle,
          limits,
          atHand
        })
        if (server === undefined) yield* Effect.orDie(open)
        yield* Effect.addFinalizer(() =>
          Effect.ensuring(
            stop,
            Effect.sync(() => {
              serve = previous
            })
          )
        )
      })
    })
  }
})

/** The server alone. */
const layerServer = (options: Options): Layer.Layer<HttpServer.HttpServer, HttpServerError.ServeError> =>
  Layer.effectContext(
    Effect.map(make(options), (server) =>
      Context.make(HttpServer.HttpServer, server).pipe(
        Context.add(ServerStatus, server.status),
        Context.add(AtHand, server.atHand)
      )
    )
  )

/** The server with the services its handlers commonly need; the file system among them refuses everything. */
export const layer = (
  options: Options
): Layer.Layer<
  HttpServer.HttpServer | HttpPlatform.HttpPlatform | Etag.Generator | FileSystem.FileSystem | Path.Path,
  HttpServerError.ServeError
> => Layer.merge(layerServer(options), HttpServer.layerServices)

const listen = (limits: Limits, fetch: Handler, error: (defect: unknown) => Response) =>
  Effect.try({
    try: () => {
      // Declared read-only, as in Node; Bun lets it be set, and Bun.serve goes by it.
      if (limits.maxHeaderBytes !== undefined) Object.assign(http, { maxHeaderSize: limits.maxHeaderBytes })
      return Bun.serve<Connection>({
        port: limits.port,
        hostname: limits.hostname,
        reusePort: limits.reusePort,
        ...(limits.tls === undefined ? undefined : { tls: limits.tls }),
        idleTimeout: limits.idleTimeoutSeconds,
        // Bun would answer 413 without a body; ours are counted by Exchange. Bun stops reading what nobody takes.
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        development: false,
        fetch,
        error,
        websocket: {
          maxPayloadLength: limits.maxBodyBytes,
          open: (ws) => ws.data.onOpen(ws),
          message: (ws, message) => ws.data.onMessage(message),
          drain: (ws) => ws.data.onDrain(),
          close: (ws, code, reason) => ws.data.onClose(code, reason)
        }
      })
    },
    catch: (cause) => {
      const code = cause instanceof Error && "code" in cause ? cause.code : undefined
      const where = `${limits.hostname}:${limits.port}`
      return new HttpServerError.ServeError({
        cause: new Error(
          code === "EADDRINUSE"
            ? `Port ${limits.port} is in use: cannot listen on ${where}`
            : `Cannot listen on ${where}`,
          { cause }
        )
      })
    }
  })

const addressOf = (hostname: string, port: number | undefined) =>
  NetAddress.inetAddressFromIpString(hostname === "localhost" ? "127.0.0.1" : hostname, port ?? 0).pipe(
    Result.mapError((cause) => new HttpServerError.ServeError({ cause })),
    Effect.fromResult
  )

const makeHandler = (options: {
  readonly app: Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    unknown,
    HttpServerRequest.HttpServerRequest | Scope.Scope
  >
  readonly middleware: Parameters<typeof HttpEffect.toHandled>[2]
  readonly context: Context.Context<never>
  readonly lifecycle: Lifecycle
  readonly limits: Limits
  readonly atHand: Offers
}): Handler => {
  const { atHand, lifecycle, limits } = options
  // A flat copy: Effect copies a context's map when services are added to a deep one, which would be at every request.
  const context = Context.makeUnsafe<never>(new Map(options.context.mapUnsafe))
  const handled = HttpEffect.toHandled(
    options.app,
    (request, response) => (request instanceof BunRequest ? request.exchange.send(response) : Effect.die(request)),
    options.middleware
  )

  return (request, server) => {
    if (lifecycle.refusing && !limits.servedWhileDraining.has(pathOf(request.url).split("?", 1)[0] ?? "")) {
      return problem(draining, limits.problemHeaders?.(request))
    }
    const method = request.method
    if (method === "GET" || method === "HEAD") {
      const answer = atHand.answer(request)
      if (answer !== undefined) return answer
    } else {
      const length = request.headers.get("content-length")
      if (length !== null && Number(length) > limits.maxBodyBytes) {
        return problem(payloadTooLarge(limits.maxBodyBytes), limits.problemHeaders?.(request))
      }
    }

    const exchange = new Exchange(request, server, lifecycle, limits)
    const fiber = Effect.runForkWith(
      Context.add(context, HttpServerRequest.HttpServerRequest, new BunRequest(exchange))
    )(handled)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      if (exit._tag === "Failure") report(context, exchange, exit.cause)
      return exchange.isAnswered ? exchange.answer : problem(internal)
    }

    lifecycle.follow(fiber)
    exchange.onAbort = () => fiber.interruptUnsafe(undefined, HttpServerError.ClientAbort.annotation)
    fiber.addObserver((exit) => {
      lifecycle.unfollow(fiber)
      if (exit._tag === "Failure") report(context, exchange, exit.cause)
      if (!exchange.isAnswered) exchange.resolve(problem(internal))
    })
    if (exchange.isAnswered) return exchange.answer
    lifecycle.watch(exchange)
    return new Promise<Answer>((resolve) => {
      exchange.onAnswer = resolve
    })
  }
}

/** Only what was answered with a 5xx is news: refusals are answers, and a client may leave. */
const report = (context: Context.Context<never>, exchange: Exchange, failure: Cause.Cause<never>): void => {
  const [response, cause] = HttpServerError.causeResponseStripped(failure)
  if (response.status < 500 || Option.isNone(cause) || Cause.hasInterruptsOnly(cause.value)) return
  Effect.logError("An HTTP request failed", cause.value).pipe(
    Effect.annotateLogs({
      "http.request.method": exchange.request.method,
      "url.path": pathOf(exchange.request.url).split("?", 1)[0],
      "http.response.status_code": response.status
    }),
    Effect.runForkWith(context)
  )
}
