import { Effect } from "effect"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as RunningProcess from "./RunningProcess.ts"

/** Whether nobody listens at a TCP port of this address, at this moment. */
export const isFree = (port: number, host: string) =>
  Effect.callback<boolean>((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ port, host }, () => server.close(() => resume(Effect.succeed(true))))
    return Effect.sync(() => server.close())
  })

const notes = join(tmpdir(), "merkato-ports")

/**
 * Notes that a port is a process's, and tells whether it could: between being found free and being listened at it looks free
 * to everybody, and so it does while who listens there is dead and about to be started again.
 */
const take = (port: number, owner: number): boolean => {
  const note = join(notes, String(port))
  try {
    mkdirSync(notes, { recursive: true })
    writeFileSync(note, String(owner), { flag: "wx" })
  } catch {
    try {
      if (RunningProcess.answers(Number(readFileSync(note, "utf8")))) return false
      writeFileSync(note, String(owner))
    } catch {
      // Nothing can be noted there: then there is only whether somebody listens.
    }
  }
  return true
}

/**
 * A port of 127.0.0.1 that was free a moment ago, and stays so for whoever starts there again later: below those that systems
 * give to outgoing connections (32768 and up on Linux, 49152 elsewhere), and given to nobody else who asks here while its
 * owner runs (a process id; who asks, unless told).
 */
export const freePort = async (owner = process.pid): Promise<number> => {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    if ((await Effect.runPromise(isFree(port, "127.0.0.1"))) && take(port, owner)) return port
  }
}
