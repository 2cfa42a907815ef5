/** What a server needs on this machine to run, and how one knows that it does. One small file beside this one is one server. */
export interface Server {
  readonly name: string
  /** The only version that is started; compose.yaml names the same. */
  readonly version: string
  /** The same server for those who have Docker. */
  readonly image: string
  /** Its ports, all on 127.0.0.1, with their defaults; the first is where clients go. */
  readonly ports: Readonly<Record<string, number>>
  /** Servers that have to be ready before it starts. */
  readonly needs: ReadonlyArray<string>
  /** Milliseconds in which it is ready on a busy machine. */
  readonly readyWithinMs: number
  /** Fetches what it runs from into the cache, verified; a second time downloads nothing. */
  readonly install: (place: Installing) => Promise<void>
  /** Its installation takes minutes and shares nothing with others: they need not wait for it. */
  readonly isBuilt?: boolean
  /** Writes its configuration and says how it is started. */
  readonly prepare: (place: Place) => Promise<Launch>
  /** Whether it answers, and is the one in this place; a stranger that answers is an error. */
  readonly isReady: (place: Place, pid: number) => Promise<boolean>
  /** What the shop is told, as in `KAFKA_BROKERS`. */
  readonly settings: (place: Place) => Readonly<Record<string, string>>
}

export interface Installing {
  /** Shared by all servers, and kept. */
  readonly cache: string
  readonly say: (line: string) => void
}

export interface Place extends Installing {
  /** The server's own folder: configuration, data and log. */
  readonly folder: string
  readonly port: (name: string) => number
  /** What the shop is told of a server that this one needs, as in `KAFKA_BROKERS`. */
  readonly setting: (name: string) => string
}

export interface Launch {
  readonly command: readonly [string, ...ReadonlyArray<string>]
  readonly environment?: Readonly<Record<string, string>>
}

/** Said to who started the script, as it is; everything else that is thrown is a mistake of ours. */
export class Refused extends Error {}

export interface Ran {
  readonly code: number
  /** Both streams. */
  readonly output: string
}

/** Runs a program to its end. */
export const run = async (
  command: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {},
  cwd?: string
): Promise<Ran> => {
  const child = Bun.spawn(["sh", "-c", 'exec "$@" 2>&1', "sh", ...command], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "inherit"],
    ...(cwd === undefined ? {} : { cwd })
  })
  const output = await new Response(child.stdout).text()
  return { code: await child.exited, output }
}

/** Seconds before a download that failed is tried again. */
const pauses = [3, 10, 30]

/** Runs a program that downloads, again when it fails: registries have bad moments. */
export const runPatiently = async (
  command: ReadonlyArray<string>,
  place: Installing,
  environment: Readonly<Record<string, string>> = {},
  cwd?: string
): Promise<Ran> => {
  for (const pause of pauses) {
    const ran = await run(command, environment, cwd)
    if (ran.code === 0) return ran
    place.say(`${command[0]} failed (code ${ran.code}), again in ${pause} s`)
    await Bun.sleep(pause * 1_000)
  }
  return run(command, environment, cwd)
}

/** A tool on the PATH. */
export const tool = (name: string): string | undefined => Bun.which(name) ?? undefined
