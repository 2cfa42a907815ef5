import { Effect, Layer, ManagedRuntime, Redacted, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { UserId } from "@merkato/domain/kernel/Ids"
import type { Region } from "@merkato/domain/kernel/Region"
import { Principal, type Role } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { type Answer, Client, type RequestOptions, text } from "./Client.ts"
import { heldOpen } from "./HeldOpen.ts"
import { type Running, startApp, temporaryFolder } from "./Processes.ts"
import { RestContract } from "./RestContract.ts"

/** A client whose answers are all held against the contract. */
class CheckedClient extends Client {
  constructor(
    readonly contract: RestContract,
    url: string,
    token?: string
  ) {
    super(url, token)
  }

  override as(token: string | undefined) {
    return new CheckedClient(this.contract, this.url, token)
  }

  override async request(method: string, path: string, options?: RequestOptions): Promise<Answer> {
    const answer = await super.request(method, path, options)
    this.contract.check(method, path, answer)
    return answer
  }
}

const Rows = Schema.Array(Schema.Record(Schema.String, Schema.Unknown))

const contextsWithEvents = ["identity", "catalogue", "pricing", "cart", "inventory", "orders", "payments", "partners"]

/** The shop that all tests of a file share: a process of its own, on a database that the tests can look into. */
export class RestShop {
  readonly contract = new RestContract()
  /** Somebody who has not signed in. */
  readonly anyone: Client
  private products = 0

  constructor(
    private readonly running: Running,
    /** What a process has to be told to work on this shop. */
    readonly settings: Readonly<Record<string, string>>,
    private readonly runtime: ManagedRuntime.ManagedRuntime<SqlClient.SqlClient | Tokens, unknown>
  ) {
    this.anyone = new CheckedClient(this.contract, running.url)
  }

  get url() {
    return this.running.url
  }

  /** What the process has printed so far. */
  get output() {
    return this.running.output()
  }

  /** A token signed with the shop's own key. */
  token(userId: string, role: Role = "shopper", region: Region = "us", seconds = 3_600): Promise<string> {
    const principal = new Principal({ userId: UserId.make(userId), role, region })
    return this.runtime.runPromise(Effect.flatMap(Tokens, (tokens) => tokens.issue(principal, seconds)))
  }

  /** A token with which services of the shop prove themselves to each other. */
  serviceToken(): Promise<string> {
    return this.runtime.runPromise(Effect.flatMap(Tokens, (tokens) => tokens.issueForServices))
  }

  async as(userId: string, role?: Role, region?: Region): Promise<Client> {
    return this.anyone.as(await this.token(userId, role, region))
  }

  /** Looks into the shop's database. */
  sql<A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>): Promise<A> {
    return this.runtime.runPromise(effect)
  }

  rows(query: string): Promise<typeof Rows.Type> {
    return this.runtime.runPromise(
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.flatMap(sql.unsafe(query), (rows) => Schema.decodeUnknownEffect(Rows)(rows))
      )
    )
  }

  /** A new product, for 1.00 USD unless told, with so many units on the shelf. */
  async product(fields: Readonly<Record<string, unknown>> = {}, units = 0): Promise<string> {
    const admin = await this.as("ADMIN", "admin")
    const nth = ++this.products
    const product = {
      sku: `SKU-${nth}`,
      name: `Product ${nth}`,
      category: "Test",
      price: 1,
      currency: "USD",
      ...fields
    }
    const productId = text(await admin.post("/api/v1/products", product), "productId")
    if (units > 0) await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
    return productId
  }

  /** Waits until every event has been published and consumed, and nothing changes any more. */
  async settled(): Promise<void> {
    const deadline = Date.now() + 40_000
    const unpublished = contextsWithEvents.map((context) => `(select count(*) from ${context}.outbox)`).join(" + ")
    let last = ""
    for (let still = 0; still < 3; ) {
      if (Date.now() > deadline) throw new Error("the shop does not come to rest")
      const [row] = await this.rows(
        `select ${unpublished} as unpublished, (select count(*) from bus.log) as published,
           (select sum(next_offset) from bus.consumer_groups) as read,
           (select count(*) from notifications.notifications) as told`
      )
      const now = JSON.stringify(row, (_, value) => (typeof value === "bigint" ? String(value) : value))
      still = now === last && Number(row?.["unpublished"]) === 0 ? still + 1 : 0
      last = now
      await Bun.sleep(50)
    }
  }

  /** How many events a consumer group has not taken, as the gauge has it; it looks every 15 s. */
  async lagOf(group: string): Promise<number> {
    const metrics = await (await fetch(`${this.url}/metrics`)).text()
    return Number(new RegExp(`^consumer_group_lag\\{[^}]*group="${group}"[^}]*\\} (\\d+)$`, "m").exec(metrics)?.[1])
  }

  /** Every table of the shop with its number of rows and a checksum of them; equal when nothing has changed. */
  async fingerprint(): Promise<string> {
    this.census ??= this.rows(
      `select format('select %L as name, count(*)::int as rows,
           md5(coalesce(string_agg(t::text, '','' order by t::text), '''')) as sum from %s t', c.oid::regclass, c.oid::regclass) as part
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'`
    ).then((parts) => parts.map(({ part }) => String(part)).join(" union all "))
    const tables = await this.rows(await this.census)
    return tables
      .map(({ name, rows, sum }) => `${name} ${rows} ${sum}`)
      .toSorted()
      .join("\n")
  }
  private census: Promise<string> | undefined

  async close(): Promise<void> {
    await this.running.end("SIGTERM")
    await this.runtime.dispose()
  }
}

type Environment = Readonly<Record<string, string>>

/** Opens a shop for the tests of a file, and closes it after them; what it is told may depend on the URL of its database. */
export const restShop = (
  environment: Environment | ((databaseUrl: string) => Promise<Environment>) = {}
): (() => RestShop) =>
  heldOpen(
    Effect.gen(function* () {
      const database = yield* TestDatabase.fresh
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      const url = Redacted.value(database.url)
      const told = typeof environment === "function" ? yield* Effect.promise(() => environment(url)) : environment
      const settings = { DATABASE_URL: url, ...told }
      const running = yield* Effect.promise(() => startApp("shop", ["--data-dir", folder.path, "--no-seed"], settings))
      const runtime = ManagedRuntime.make(
        Layer.mergeAll(
          Database.layer({ url: database.url, maxConnections: 2, applicationName: "test" }),
          Tokens.layer.pipe(Layer.provide(KeyRing.layer(folder.path)))
        )
      )
      const made = new RestShop(running, settings, runtime)
      yield* Effect.addFinalizer(() => Effect.promise(() => made.close()))
      return made
    }),
    60_000
  )
