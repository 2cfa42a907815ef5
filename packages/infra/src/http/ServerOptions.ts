import { Duration } from "effect"

export interface Options {
  /** 0 takes a free port; `HttpServer.address` says which. */
  readonly port: number
  /** An IP address, or "localhost" for 127.0.0.1. Default 127.0.0.1. */
  readonly hostname?: string | undefined
  /**
   * Several processes share the port. A listener of them (of any port but 0) opens when there is something to answer, and
   * draining closes it first, for the others to take over.
   */
  readonly reusePort?: boolean | undefined
  readonly tls?: Bun.TLSOptions | undefined
  /** Limit of a request's body, and of one WebSocket message. Default 1 MiB; beyond it the answer is 413. */
  readonly maxBodyBytes?: number | undefined
  /** Limit of a request's header block. Bun has one such limit per process, so this sets it for all. Default 16 KiB. */
  readonly maxHeaderBytes?: number | undefined
  /** How long requests in flight may take to finish once the server drains. Default 10 s. */
  readonly drainTimeout?: Duration.Input | undefined
  /** How long everything is still served after draining was announced, for load balancers to notice. Default 0. */
  readonly drainDelay?: Duration.Input | undefined
  /** Paths that are answered to the end, draining or not. Default /readyz and /healthz. */
  readonly servedWhileDraining?: ReadonlyArray<string> | undefined
  /**
   * A connection on which nothing moves is closed, even if a handler is still at work: event streams send a comment more
   * often than this. Whole seconds, 5 to 255, or 0 for never; checked every 4 s. Default 60 s. WebSockets are pinged, and
   * closed after 120 s without an answer.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /** Headers for the answers the server gives itself (413, 503) and no middleware sees: the correlation id, say. */
  readonly problemHeaders?: ((request: Request) => Readonly<Record<string, string>>) | undefined
}

export const limitsOf = (options: Options) => ({
  port: options.port,
  hostname: options.hostname ?? "127.0.0.1",
  reusePort: options.reusePort ?? false,
  tls: options.tls,
  maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024,
  maxHeaderBytes: options.maxHeaderBytes,
  drainTimeout: Duration.fromInputUnsafe(options.drainTimeout ?? "10 seconds"),
  drainDelay: Duration.fromInputUnsafe(options.drainDelay ?? 0),
  servedWhileDraining: new Set(options.servedWhileDraining ?? ["/readyz", "/healthz"]),
  idleTimeoutSeconds: idleTimeoutSeconds(Duration.toSeconds(options.idleTimeout ?? "60 seconds")),
  problemHeaders: options.problemHeaders
})
export type Limits = ReturnType<typeof limitsOf>

/** Bun looks every 4 s: with less than 5 s it would cut connections on which something did move. */
const idleTimeoutSeconds = (seconds: number) => (seconds === 0 ? 0 : Math.min(255, Math.max(5, Math.ceil(seconds))))
