import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { installPackages } from "../../scripts/server/Apt.ts"
import { Refused, tool } from "../../scripts/server/Server.ts"

/** Debian's Chromium without its windows; others are as good. */
const names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
const installed = () => names.map(tool).find((path) => path !== undefined)

/**
 * A Chromium of this machine, installed when there is none. Where it cannot be had the log says what is not tested; under
 * CI=true that is a failure.
 */
export const chromium = async (what: string): Promise<string | undefined> => {
  const place = { cache: tmpdir(), say: (line: string) => console.error(line) }
  if (installed() === undefined) {
    await installPackages(["chromium-headless-shell"], "Chromium", place).catch((error: unknown) => {
      if (!(error instanceof Refused) || process.env["CI"] === "true") throw error
      console.log(`NOT RUN: ${what}: ${error.message.split("\n")[0]}`)
    })
  }
  return installed()
}

interface Told {
  readonly id?: number
  readonly result?: { readonly result?: { readonly value?: unknown }; readonly exceptionDetails?: unknown }
  readonly error?: unknown
}

/** A page in a real browser; what is evaluated there is its own JavaScript. */
export class Page {
  private next = 0
  private readonly waiting = new Map<number, (told: Told) => void>()

  private constructor(
    private readonly browser: Bun.Subprocess,
    private readonly profile: string,
    private readonly socket: WebSocket
  ) {
    socket.addEventListener("message", ({ data }) => {
      const told: Told = JSON.parse(String(data))
      if (told.id !== undefined) this.waiting.get(told.id)?.(told)
    })
  }

  /** Starts the browser with one page. Ends with this process at the latest. */
  static async open(program: string, url: string): Promise<Page> {
    const profile = mkdtempSync(join(tmpdir(), "merkato-browser-"))
    const browser = Bun.spawn(
      [
        program,
        "--headless",
        // It does not start as root otherwise; it sees nothing but our own pages.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
        `--user-data-dir=${profile}`,
        "about:blank"
      ],
      // A group of its own: what Debian calls by the name is a script that starts it, and it starts many more.
      { stdio: ["ignore", "ignore", "pipe"], detached: true }
    )
    process.once("exit", () => endGroup(browser.pid))
    const address = new URL(await addressIn(browser.stderr))
    const tabs: unknown = await (await fetch(`http://${address.host}/json/list`)).json()
    const tab = Array.isArray(tabs) ? tabs.find(({ type }) => type === "page") : undefined
    const socket = new WebSocket(String(tab.webSocketDebuggerUrl))
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve)
      socket.addEventListener("error", reject)
    })
    const page = new Page(browser, profile, socket)
    await page.ask("Page.navigate", { url })
    return page
  }

  /** What an expression of JavaScript is in the page, waited for if it is a promise. */
  async evaluate(expression: string): Promise<unknown> {
    const { result } = await this.ask("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })
    if (result?.exceptionDetails !== undefined) throw new Error(JSON.stringify(result.exceptionDetails))
    return result?.result?.value
  }

  private async ask(method: string, params: object): Promise<Told> {
    const id = ++this.next
    const told = new Promise<Told>((resolve) => this.waiting.set(id, resolve))
    this.socket.send(JSON.stringify({ id, method, params }))
    const answer = await told
    this.waiting.delete(id)
    if (answer.error !== undefined) throw new Error(`${method}: ${JSON.stringify(answer.error)}`)
    return answer
  }

  async close(): Promise<void> {
    this.socket.close()
    endGroup(this.browser.pid)
    await this.browser.exited
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

const endGroup = (pid: number): void => {
  try {
    process.kill(-pid, "SIGKILL")
  } catch {
    // It has ended already.
  }
}

/** Where the browser says that it listens. */
const addressIn = async (log: ReadableStream<Uint8Array>): Promise<string> => {
  const [decoder, reader] = [new TextDecoder(), log.getReader()]
  for (let said = ""; ; ) {
    const { done, value } = await reader.read()
    if (done) throw new Error(`The browser ended:\n${said}`)
    said += decoder.decode(value, { stream: true })
    const address = /DevTools listening on (ws:\S+)\n/.exec(said)?.[1]
    if (address === undefined) continue
    // The rest has to be read as well, or it would stand still once the pipe is full.
    void (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {})
    return address
  }
}
