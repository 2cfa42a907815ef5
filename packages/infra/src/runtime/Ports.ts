import { Effect } from "effect"
import { createServer } from "node:net"

/** Whether nobody listens at a TCP port of this address, at this moment. */
export const isFree = (port: number, host: string) =>
  Effect.callback<boolean>((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ port, host }, () => server.close(() => resume(Effect.succeed(true))))
    return Effect.sync(() => server.close())
  })

/**
 * A port of 127.0.0.1 that was free a moment ago, and stays so for whoever starts there again later: below those that systems
 * give to outgoing connections (32768 and up on Linux, 49152 elsewhere).
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    if (await Effect.runPromise(isFree(port, "127.0.0.1"))) return port
  }
}
