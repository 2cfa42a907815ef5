/** A request whose connection is cut, and what was seen of the answer before. */
export interface CutRequest {
  readonly url: string
  readonly path: string
  readonly token: string
  readonly key: string
  readonly body: unknown
  /** How much of the request is sent before anything else: all of it, or the first half. */
  readonly sent: "all" | "half"
  /** When to cut; a promise for a moment that is not on the clock. */
  readonly cut: Promise<unknown>
}

/** Sends a request over a connection of its own and cuts it; whether the answer had begun to come. */
export const cutConnection = async (request: CutRequest): Promise<{ readonly answered: boolean }> => {
  const { hostname, port } = new URL(request.url)
  const body = JSON.stringify(request.body)
  const bytes = [
    `POST ${request.path} HTTP/1.1`,
    `host: ${hostname}:${port}`,
    `authorization: Bearer ${request.token}`,
    `idempotency-key: ${request.key}`,
    "content-type: application/json",
    `content-length: ${body.length}`,
    "",
    body
  ].join("\r\n")
  let answered = false
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      data: () => {
        answered = true
      }
    }
  })
  socket.write(request.sent === "all" ? bytes : bytes.slice(0, bytes.length - Math.ceil(body.length / 2)))
  socket.flush()
  await request.cut
  socket.terminate()
  return { answered }
}
