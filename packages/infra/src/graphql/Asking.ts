import type { Effect } from "effect"
import DataLoader from "dataloader"

/** One request to the graph. Its fields are answered in the name, and in the trace, of whoever asks. */
export interface Asking {
  readonly run: <A>(effect: Effect.Effect<A, unknown>) => Promise<A>
}

/** As many as anybody is asked for at a time. */
const maxBatchSize = 100

/** Reads what the fields of a request need at the same moment together, and each once. */
export const together = <A>(
  read: (ids: ReadonlyArray<string>) => Effect.Effect<(id: string) => A, unknown>
): ((id: string, asking: Asking) => Promise<A>) => {
  const loaders = new WeakMap<Asking, DataLoader<string, A>>()
  return (id, asking) => {
    const known = loaders.get(asking)
    if (known !== undefined) return known.load(id)
    const made = new DataLoader<string, A>(async (ids) => ids.map(await asking.run(read(ids))), { maxBatchSize })
    loaders.set(asking, made)
    return made.load(id)
  }
}
