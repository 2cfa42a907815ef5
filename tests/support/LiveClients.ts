import type WebSocket from "ws"
import { until } from "./Until.ts"

// By its path: Bun would give its own client for the name, and this one is to be foreign.
const foreign = new URL("../../node_modules/ws/lib/websocket.js", import.meta.url).pathname
const { default: Client }: { readonly default: typeof WebSocket } = await import(foreign)

export type Frame = Readonly<Record<string, unknown>>

/** A WebSocket client that we did not write, on `/ws/orders`; what it is sent is kept. */
export class OrderWatcher {
  readonly frames: Array<Frame> = []
  /** Code and reason with which the server ended the socket. */
  readonly closed: Promise<string>
  private readonly socket: WebSocket

  private constructor(socket: WebSocket) {
    this.socket = socket
    socket.on("message", (data) => this.frames.push(JSON.parse(String(data))))
    // What breaks is told by its close code.
    socket.on("error", () => {})
    this.closed = new Promise((resolve) => socket.on("close", (code, reason) => resolve(`${code} ${String(reason)}`)))
  }

  /** Opens a socket at a gateway, and says who is there. */
  static async open(url: string, token?: string): Promise<OrderWatcher> {
    const socket = new Client(`${url.replace("http", "ws")}/ws/orders`)
    const watcher = new OrderWatcher(socket)
    await new Promise<void>((resolve, reject) => socket.once("open", resolve).once("error", reject))
    if (token !== undefined) watcher.send({ auth: token })
    return watcher
  }

  send(frame: unknown): void {
    this.sendRaw(JSON.stringify(frame))
  }
  sendRaw(data: string | Uint8Array): void {
    this.socket.send(data)
  }
  /** Waits until so many frames have come. */
  async have(count: number): Promise<ReadonlyArray<Frame>> {
    await until(
      async () => this.frames.length,
      (length) => length >= count
    )
    return this.frames
  }
  /** Breaks the connection off, with no word of it to the server. */
  cut(): void {
    this.socket.terminate()
  }
}

/** What frames say of an order's way. */
export const statuses = (frames: ReadonlyArray<Frame>) => frames.map(({ status }) => status)

/** The code of each error frame. */
export const errorCodes = (frames: ReadonlyArray<Frame>) =>
  frames.map(({ error }) => (typeof error === "object" && error !== null && "code" in error ? error.code : undefined))
