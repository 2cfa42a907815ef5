/** A copy built anew beside the live one, which goes on meanwhile. As `Build` does it, without transactions on the other side. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { type Kept, registerOf } from "./Copy.ts"
import * as Lease from "./Lease.ts"
import { readLog, type ReadSoFar } from "./ReadLog.ts"

export interface CopyBuild extends Kept {
  readonly entry: Lease.Entry
}

/** Ends a build that is not to be used. In this order: who writes to a place that is gone would write again and again. */
const abandon = Effect.fnUntraced(function* (build: CopyBuild) {
  if (yield* Lease.release(build.entry)) yield* build.store.abandon
})

/**
 * Makes room beside the live rows; from here on the consumers write to both. Whatever they have taken before is in the log by
 * now, as with `Build.begin`. With the scope the build ends, if it has no other end by then.
 */
export const begin = Effect.fnUntraced(function* ({ copy, store }: Kept, waits: Effect.Effect<void> = Effect.void) {
  const entry: Lease.Entry = { register: registerOf(copy), name: copy.name, id: yield* Ids.next }
  const build: CopyBuild = { copy, store, entry }
  yield* Lease.take(entry, store.begin, waits)
  yield* Effect.addFinalizer(() => Effect.ignore(abandon(build)))
  yield* Lease.renewing(entry)
  return build
})

/** Reads the context's log into the new rows. */
export const read = ({ copy, store, entry }: CopyBuild, tells: (soFar: ReadSoFar) => void = () => {}) =>
  readLog(copy.projection, {
    tells,
    write: Effect.fnUntraced(function* (rows) {
      if (!(yield* store.write("next", rows))) return yield* Lease.lost(entry)
    })
  })

/**
 * Puts the new rows into the place of the live ones, as long as the build is in the register: a consumer that took it out has
 * passed the new rows over. Consumers that find their place gone meanwhile write again, to the live one that it is now.
 */
export const swap = Effect.fnUntraced(function* (build: CopyBuild) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* Lease.close(build.entry)
      yield* build.store.swap
    })
  )
})

/** How often one looks whether there are live rows. */
const lookEvery = "5 seconds"

/** Builds the live rows where there are none: on a new server, or on one that has lost all it had. */
export const keepBuilt = (kept: Kept) => {
  const { copy, store } = kept
  const build = Effect.gen(function* () {
    if (yield* store.isBuilt) return
    yield* Effect.logInfo(`${copy.name} is built in ${store.server}`)
    const build = yield* begin(kept)
    const events = yield* read(build)
    yield* swap(build)
    yield* Effect.logInfo(`${copy.name} is in ${store.server}, of ${events} events`)
  }).pipe(
    Effect.scoped,
    Effect.catchTags({
      StoreUnavailable: () => Effect.void,
      ReplayFailed: ({ reason }) => Effect.logWarning(`${copy.name} is not built in ${store.server} yet: ${reason}`),
      SqlError: (error) => Effect.logWarning(`${copy.name} is not built in ${store.server} yet`, error.message)
    })
  )
  return Effect.forever(Effect.andThen(build, Effect.sleep(lookEvery)))
}
