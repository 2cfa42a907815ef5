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

/** A port of this machine that was free a moment ago. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen({ port: 0, host: "127.0.0.1" }, () => {
      const address = server.address()
      server.close(() =>
        typeof address === "object" && address !== null ? resolve(address.port) : reject(new Error("no port"))
      )
    })
  })
