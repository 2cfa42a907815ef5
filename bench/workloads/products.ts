import { join } from "node:path"
import { Effect } from "effect"
import * as HttpLoad from "../HttpLoad.ts"
import type { Stage } from "../Stage.ts"
import { load, type Workload } from "../Workload.ts"

/** GET of a cached product, beside a bare Bun.serve that answers the same bytes. */
export const product = Effect.fnUntraced(function* (stage: Stage) {
  const { productIds, shop } = stage
  const sample = yield* Effect.promise(() =>
    fetch(`http://127.0.0.1:${shop.port}/api/v1/products/${productIds[0]}`).then((answer) => answer.text())
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
  const clients = 16
  const read = (index: number): HttpLoad.Sent => ({ method: "GET", path: `/api/v1/products/${productIds[index]}` })
  const next = () => read(Math.floor(Math.random() * productIds.length))
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
    theirs: (seconds) =>
      Effect.promise(() => HttpLoad.run({ host: "127.0.0.1", port: bare.port, clients, seconds, next })).pipe(
        Effect.map((result) => result.perSecond)
      )
  } satisfies Workload
})
