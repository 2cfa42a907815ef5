import { type ChildProcess, spawn } from "node:child_process"
import { kill } from "./Crash.ts"

/** Where a consumer can be told to stop in a batch: in the midst of its transaction, or once that is committed. */
const places = ["amid", "after"] as const
export type Where = (typeof places)[number]
export const isWhere = (told: unknown): told is Where => places.some((place) => place === told)

export const group = "test.consumer-process"
/** A topic that no context of the shop writes to yet. */
export const topic = "return.events"
export const eventType = "ecommerce.test.thing.happened.v1"
export const schema = "killed"

const program = new URL("./consumer-process.ts", import.meta.url).pathname

/** One process of the group. */
export interface ConsumerProcess {
  /** Has it stop for good in its next batch; comes back when it knows, and `stands` when it stands there. */
  readonly stopAt: (where: Where) => Promise<{ readonly stands: Promise<void> }>
  /** kill -9 */
  readonly kill: () => Promise<void>
  /** Lets it finish what it has in hand. */
  readonly end: () => Promise<void>
}

/** Starts a process of the group, which ends with this one. */
export const startConsumer = (environment: Readonly<Record<string, string>>): ConsumerProcess => {
  const child: ChildProcess = spawn(process.execPath, [program], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  return {
    stopAt: async (where) => {
      const says = (word: string) =>
        new Promise<void>((resolve, reject) => {
          child.on("message", (said) => {
            if (said === word) resolve()
          })
          child.once("exit", () => reject(new Error("A consumer ended before it was killed")))
        })
      const [knows, stands] = [says("told"), says(where)]
      stands.catch(() => {})
      child.send(where)
      await knows
      return { stands }
    },
    kill: () => {
      kill(child.pid ?? 0)
      return ended
    },
    end: () => {
      if (child.connected) child.disconnect()
      return ended
    }
  }
}
