// An HTTP/1.1 load generator on bare sockets: as little work per request as can be, so that the figures are the server's and
// not the client's. Closed loop (each client begins its next operation when it has the answer), or at a given rate. Keep-alive, one request at a time per connection, bodies by Content-Length.

import * as Latencies from "./Latencies.ts"

export interface Sent {
  readonly method: "GET" | "POST" | "PUT"
  readonly path: string
  readonly headers?: string
  readonly body?: string
}

export interface Load {
  readonly host: string
  readonly port: number
  readonly clients: number
  readonly seconds: number
  /**
   * Operations that begin each second, whoever of the clients is free; as many as can be unless told. One that begins late,
   * because all clients still wait, is counted from when it was due.
   */
  readonly perSecond?: number
  /** Requests that make one operation, one after the other; 1 unless told. */
  readonly steps?: number
  /** The next request of a client: which operation of it, which step, and what the step before answered. */
  readonly next: (client: number, nth: number, step: number, before: string) => Sent
}

/** Of the operations whose every step was answered below 400. */
export interface Result extends Latencies.Latencies {
  readonly byStatus: ReadonlyMap<number, number>
}

const headersEnd = Buffer.from("\r\n\r\n")

/** Loads a server; operations that began within the time count. */
export const run = async ({ host, port, clients, seconds, perSecond, steps = 1, next }: Load): Promise<Result> => {
  const latencies: Array<number> = []
  const byStatus = new Map<number, number>()
  const begun = performance.now()
  const until = begun + seconds * 1_000
  let due = begun
  /** When the next operation begins. */
  const nextBegin = () => {
    if (perSecond === undefined) return performance.now()
    due += 1_000 / perSecond
    return due
  }

  const client = (id: number) =>
    new Promise<void>((resolve, reject) => {
      let nth = 0
      let step = 0
      let begunAt = 0
      let before = ""
      let pending = Buffer.alloc(0)
      let wanted = -1
      let bodyAt = 0
      let status = 0
      const begin = (socket: Bun.Socket) => {
        begunAt = nextBegin()
        const early = begunAt - performance.now()
        if (begunAt >= until) {
          socket.end()
          resolve()
        } else if (early > 0) setTimeout(() => send(socket), early)
        else send(socket)
      }
      const send = (socket: Bun.Socket) => {
        const { method, path, headers = "", body } = next(id, nth, step, before)
        const length =
          body === undefined ? "" : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`
        socket.write(`${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${headers}${length}\r\n${body ?? ""}`)
      }
      void Bun.connect({
        hostname: host,
        port,
        socket: {
          open: begin,
          data: (socket, chunk) => {
            pending = pending.length === 0 ? Buffer.from(chunk) : Buffer.concat([pending, chunk])
            if (wanted < 0) {
              const end = pending.indexOf(headersEnd)
              if (end < 0) return
              const head = pending.toString("latin1", 0, end)
              status = Number(head.slice(9, 12))
              bodyAt = end + 4
              wanted = bodyAt + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
            }
            if (pending.length < wanted) return
            const now = performance.now()
            byStatus.set(status, (byStatus.get(status) ?? 0) + 1)
            if (steps > 1) before = pending.toString("utf8", bodyAt, wanted)
            pending = Buffer.alloc(0)
            wanted = -1
            step += 1
            if (status >= 400 || step === steps) {
              if (status < 400) latencies.push(now - begunAt)
              step = 0
              nth += 1
              return begin(socket)
            }
            send(socket)
          },
          error: (_, error) => reject(error),
          close: () => resolve(),
          connectError: (_, error) => reject(error)
        }
      })
    })

  await Promise.all(Array.from({ length: clients }, (_, id) => client(id)))
  const elapsed = (performance.now() - begun) / 1_000
  return { ...Latencies.of(latencies, elapsed), byStatus }
}
