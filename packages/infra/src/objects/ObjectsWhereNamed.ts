import { Effect, Layer } from "effect"
import { join } from "node:path"
import * as Files from "./Files.ts"
import * as S3 from "./S3.ts"

/** The objects of a shop: in the bucket of `S3_BUCKET`, else in its data folder. */
export const layer = (dataDir: string) =>
  Layer.unwrap(
    Effect.map(S3.configured(join(dataDir, "objects-copies")), (options) =>
      options === undefined ? Files.layer(join(dataDir, "objects")) : S3.layer(options)
    )
  )
