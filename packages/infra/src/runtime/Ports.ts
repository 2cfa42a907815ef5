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
