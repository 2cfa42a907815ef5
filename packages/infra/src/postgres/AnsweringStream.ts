/** A way to a Postgres that is given up when nobody answers there. */
import { connect, type Socket } from "node:net"

/** How often a connection is looked at in the time that an answer may take. */
const looks = 10

/** Where a URL leads over TCP; undefined for a Unix socket, behind which there is no network. */
export const tcpOf = (url: string): { readonly host: string; readonly port: number } | undefined => {
  if (!URL.canParse(url)) return undefined
  const { hostname, port, searchParams } = new URL(url)
  const host = searchParams.get("host") ?? decodeURIComponent(hostname).replaceAll(/^\[|\]$/g, "")
  if (host === "" || host.startsWith("/")) return undefined
  return { host, port: Number(searchParams.get("port") ?? (port === "" ? 5432 : port)) }
}

/**
 * Connects over TCP. The connection breaks when something was sent and nothing has come for so many milliseconds, a tenth more at
 * most: the system would wait for a quarter of an hour for a host that is gone, and for ever for one that stands still. What is
 * encrypted on top of it (TLS) is not seen here, and waited for as long as the system does.
 */
export const open = (to: { readonly host: string; readonly port: number }, answerWithinMs: number): Socket => {
  const socket = connect({ ...to, noDelay: true })
  let answeredUpTo = 0
  let waited = 0
  socket.on("data", () => {
    answeredUpTo = socket.bytesWritten
    waited = 0
  })
  // Looks and not moments are counted: a process that stood still itself hears first what has come meanwhile.
  const looking = setInterval(() => {
    if (socket.bytesWritten === answeredUpTo) waited = 0
    else if (++waited > looks) socket.destroy(new Error(`Postgres has not answered for ${answerWithinMs / 1_000} s`))
  }, answerWithinMs / looks)
  looking.unref()
  socket.once("close", () => clearInterval(looking))
  return socket
}
