import { Context, type Effect, Schema } from "effect"

/** The store does not give or take objects now. What was being written is there whole or not at all. */
export class ObjectStoreUnavailable extends Schema.TaggedError<ObjectStoreUnavailable>()("ObjectStoreUnavailable", {
  cause: Schema.Defect()
}) {
  override get message() {
    return this.cause instanceof Error ? this.cause.message : String(this.cause)
  }
}

export interface StoredObject {
  readonly name: string
  /** Bytes. */
  readonly size: number
}

/**
 * Objects under names such as `archive/day=2026-01-31/a.parquet`; each is there whole or not at all. One contract test runs
 * against each side (files here, S3 elsewhere).
 */
export class ObjectStore extends Context.Service<
  ObjectStore,
  {
    /** Those whose names begin so, in the order of their names. */
    readonly list: (prefix: string) => Effect.Effect<ReadonlyArray<StoredObject>, ObjectStoreUnavailable>
    /**
     * Writes an object that is not there. False when one of this name is, which stays as it is: of several who write the same
     * name one alone succeeds. Also false when it was ours, and the first answer was lost.
     */
    readonly putNew: (name: string, content: Uint8Array) => Effect.Effect<boolean, ObjectStoreUnavailable>
    readonly get: (name: string) => Effect.Effect<Uint8Array | undefined, ObjectStoreUnavailable>
    /** What is not there is gone already. */
    readonly remove: (name: string) => Effect.Effect<void, ObjectStoreUnavailable>
    /** A file of this machine with the object's content: for objects that are written once and never replaced. */
    readonly localFile: (name: string) => Effect.Effect<string, ObjectStoreUnavailable>
  }
>()("merkato/infra/ObjectStore") {}

/** No name leads out of the store, or to what is being written. */
export const isName = (name: string): boolean =>
  name.length <= 512 && /^[A-Za-z0-9_=-][A-Za-z0-9._=-]*(?:\/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*$/.test(name)
