import { join } from "node:path"
import { Effect } from "effect"
import * as HttpLoad from "../HttpLoad.ts"
import { categoryOf, goods } from "../Shelf.ts"
import type { Stage } from "../Stage.ts"
import { load, type Workload } from "../Workload.ts"

const clients = 16

/** A Bun.serve that answers every request with what the shop answers at this path. */
const bareTwin = Effect.fnUntraced(function* ({ shop }: Stage, path: string) {
  const sample = yield* Effect.promise(() =>
    fetch(`http://127.0.0.1:${shop.port}${path}`).then((answer) => answer.text())
  )
  const bare = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const child = Bun.spawn([process.execPath, join(import.meta.dir, "../bare-server.ts"), sample], {
        stdout: "pipe"
      })
      const { value } = await child.stdout.getReader().read()
      const port = Number(
        Buffer.from(value ?? [])
          .toString()
          .trim()
      )
      return { port, child }
    }),
    ({ child }) => Effect.sync(() => child.kill())
  )
  return (seconds: number) =>
    Effect.promise(() =>
      HttpLoad.run({ host: "127.0.0.1", port: bare.port, clients, seconds, next: () => ({ method: "GET", path }) })
    ).pipe(Effect.map((result) => result.perSecond))
})

/** One of these, by chance. */
const any = <A>(all: ReadonlyArray<A>) => all[Math.floor(Math.random() * all.length)]

/** GET of a cached product, beside a bare Bun.serve that answers the same bytes. */
export const product = Effect.fnUntraced(function* (stage: Stage) {
  const { productIds, shop } = stage
  const next = (): HttpLoad.Sent => ({ method: "GET", path: `/api/v1/products/${any(productIds)}` })
  /** Every product once, so that those of the run come from the cache. */
  const warm = Effect.promise(async () => {
    for (const productId of productIds) await fetch(`http://127.0.0.1:${shop.port}/api/v1/products/${productId}`)
  })
  return {
    name: "product",
    title: `GET product, cached, ${clients} clients`,
    twin: "bare Bun.serve, the same bytes",
    wanted: 0.35,
    ours: (seconds) => Effect.andThen(warm, load(stage, { clients, seconds, next })),
    theirs: yield* bareTwin(stage, next().path)
  } satisfies Workload
})

/** The first page of a category, 20 products of 40; wanted are 3,000/s. */
export const list = Effect.fnUntraced(function* (stage: Stage) {
  const next = (): HttpLoad.Sent => ({
    method: "GET",
    path: `/api/v1/products?category=${encodeURIComponent(categoryOf(any(goods) ?? ""))}`
  })
  return {
    name: "list",
    title: `GET products of a category, 20 of 40, ${clients} clients`,
    twin: "bare Bun.serve, the same bytes",
    ours: (seconds) => load(stage, { clients, seconds, next }),
    theirs: yield* bareTwin(stage, next().path)
  } satisfies Workload
})

/** Text search: 20 products of 40 that are found; wanted are 3,000/s. */
export const search = Effect.fnUntraced(function* (stage: Stage) {
  const next = (): HttpLoad.Sent => ({ method: "GET", path: `/api/v1/products?q=${any(goods)}` })
  return {
    name: "search",
    title: `GET products by text search, 20 of 40, ${clients} clients`,
    twin: "bare Bun.serve, the same bytes",
    ours: (seconds) => load(stage, { clients, seconds, next }),
    theirs: yield* bareTwin(stage, next().path)
  } satisfies Workload
})
