import { Redacted } from "effect"
import { freePort, type Running, startApp } from "./Processes.ts"

/** Which contexts answer in which of the two services; the edge is the third process. */
const contexts = {
  front: "identity,catalogue,pricing,cart,orders,notifications,partners,analytics",
  back: "inventory,payments,risk"
} as const

const names = ["back", "front", "gateway"] as const

/** One of the three. */
export type Name = (typeof names)[number]

/** What each is told besides where the others are. */
export type Settings = { readonly [N in Name]?: Readonly<Record<string, string>> }

/** The shop as three processes on one Postgres, each of which can be killed and started again where it was. */
export class ThreeProcesses {
  readonly #running = new Map<Name, Running>()
  readonly #logs: Array<() => string> = []

  private constructor(
    readonly database: Redacted.Redacted,
    readonly dataDir: string,
    readonly ports: Readonly<Record<Name, number>>,
    readonly settings: Settings
  ) {}

  /** Starts all three at the same time. */
  static async start(database: Redacted.Redacted, dataDir: string, settings: Settings = {}): Promise<ThreeProcesses> {
    const [gateway, front, back] = await Promise.all([freePort(), freePort(), freePort()])
    const three = new ThreeProcesses(database, dataDir, { gateway, front, back }, settings)
    await Promise.all(names.map((name) => three.start(name)))
    return three
  }

  url(name: Name): string {
    return `http://127.0.0.1:${this.ports[name]}`
  }

  async start(name: Name): Promise<void> {
    const peer = (other: keyof typeof contexts) => ["--peer", `${contexts[other]}=${this.url(other)}`]
    const args = ["--port", String(this.ports[name]), "--data-dir", this.dataDir]
    const running =
      name === "gateway"
        ? await startApp("gateway", [...args, ...peer("front"), ...peer("back")], this.settings.gateway)
        : await startApp(
            "service",
            [...args, "--contexts", contexts[name], ...peer(name === "front" ? "back" : "front")],
            { DATABASE_URL: Redacted.value(this.database), MERKATO_PAYMENT_TIMEOUT_MS: "500", ...this.settings[name] }
          )
    this.#running.set(name, running)
    this.#logs.push(running.output)
  }

  /** Sends a signal and waits for the end; the exit code, as `Running.end` has it. */
  async end(name: Name, signal: NodeJS.Signals): Promise<number | null | undefined> {
    const running = this.#running.get(name)
    this.#running.delete(name)
    return await running?.end(signal)
  }

  /** Ends all that still run. */
  async stop(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((name) => this.end(name, "SIGTERM")))
  }

  /** What they called errors while they ran. */
  get errors(): ReadonlyArray<string> {
    return this.#logs.flatMap((log) =>
      log()
        .split("\n")
        .filter((line) => line.includes('"level":"ERROR"'))
    )
  }
}
