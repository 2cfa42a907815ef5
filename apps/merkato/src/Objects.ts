/** The objects of a shop (S3_BUCKET, or its data folder), and the archive of its events among them. */
import { Config, Effect, Layer, Option } from "effect"
import { Archive } from "@merkato/infra/archive/Archive"
import * as ObjectsWhereNamed from "@merkato/infra/objects/ObjectsWhereNamed"
import { ObjectStoreUnavailable } from "@merkato/infra/objects/ObjectStore"
import { Policies } from "@merkato/infra/policy/Policies"
import { lastCause } from "@merkato/infra/runtime/LastCause"
import { CommandFailed } from "./Failure.ts"

const archive = Layer.unwrap(
  Effect.map(Config.option(Config.String("KAFKA_BROKERS")), (brokers) =>
    Archive.layer(Option.isSome(brokers) ? "kafka" : "postgres")
  )
)

/** The object store, and the archive of the bus that the shop has. */
export const layer = (dataDir: string) =>
  archive.pipe(Layer.provideMerge(ObjectsWhereNamed.layer(dataDir)), Layer.provide(Policies.layer(dataDir)))

/** What the object store does not do, as a sentence. */
const explained = ({ cause }: ObjectStoreUnavailable) =>
  new CommandFailed({ reason: `The object store cannot be used: ${lastCause(cause)}.` })

/** Runs an effect with them. */
export const provide =
  (dataDir: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.provide(layer(dataDir)),
      Effect.mapError((error) => (error instanceof ObjectStoreUnavailable ? explained(error) : error))
    )
