import { Config, Effect, Layer, Option, Redacted, Schema } from "effect"
import { S3Client } from "bun"
import { createHash } from "node:crypto"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { Policies } from "../policy/Policies.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { replaceFile } from "./Files.ts"
import { isName, ObjectStore, ObjectStoreUnavailable, type StoredObject } from "./ObjectStore.ts"

/** The S3 of `S3_BUCKET` and its neighbours cannot be used. Tells bucket and reason, never the key. */
export class S3Unusable extends Schema.TaggedError<S3Unusable>()("S3Unusable", {
  bucket: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The S3 of S3_BUCKET, S3_ENDPOINT, S3_REGION, S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY cannot be used: bucket ${this.bucket}: ${this.reason}`
  }
}

/** Seconds in which an upload that is signed has to begin. */
const signedForSeconds = 300

/** Names that one answer lists. */
const listed = 1_000

/** What S3 answered that is not what was asked for. */
class Answered extends Error {
  constructor(readonly status: number) {
    super(`S3 answered ${status}`)
  }
}

/** What Bun's client does not say of a connection, but by its code: ConnectionRefused, ConnectionClosed… */
class NotConnected extends Error {
  constructor(readonly code: string) {
    super(`S3: ${code}`)
  }
}

const toldBy = (error: unknown) =>
  error instanceof Error && "code" in error && error.message === "an unexpected error has occurred"
    ? new NotConnected(String(error.code))
    : error

const isMissing = (error: unknown) =>
  error instanceof Error && "code" in error && (error.code === "NoSuchKey" || error.code === "NotFound")

/** Nobody answered, or somebody who was busy: not a refusal, which stays one. */
const isTransient = ({ cause }: ObjectStoreUnavailable): boolean => {
  if (cause instanceof Answered) return cause.status >= 500 || cause.status === 429
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : ""
  return !/^(?:AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|NoSuchKey|InvalidURI)$/.test(code)
}

export interface S3Options {
  readonly bucket: string
  /** Of an S3 that is not Amazon's. */
  readonly endpoint?: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: Redacted.Redacted
  /** A folder of this machine for copies of what has been read. */
  readonly copies: string
}

/** Where it is and who we are, as the tools of Amazon read it; none without `S3_BUCKET`. */
export const configured = (copies: string) =>
  Effect.gen(function* () {
    const bucket = yield* Config.option(Config.String("S3_BUCKET"))
    if (Option.isNone(bucket)) return undefined
    const endpoint = yield* Config.option(Config.String("S3_ENDPOINT"))
    return {
      bucket: bucket.value,
      ...(Option.isSome(endpoint) ? { endpoint: endpoint.value } : {}),
      region: yield* Config.String("S3_REGION").pipe(Config.withDefault("us-east-1")),
      accessKeyId: yield* Config.String("S3_ACCESS_KEY_ID"),
      secretAccessKey: yield* Config.Redacted("S3_SECRET_ACCESS_KEY"),
      copies
    } satisfies S3Options
  })

/**
 * The object store in a bucket of S3 or of what speaks like it, under the policy `object.store`. Wants conditional writes
 * (`If-None-Match`), which it tries at the start: without them two writers of a name would both believe to be the first.
 */
export const layer = (options: S3Options) =>
  Layer.effect(
    ObjectStore,
    Effect.gen(function* () {
      const { guard } = yield* Policies
      const client = new S3Client({
        bucket: options.bucket,
        region: options.region,
        accessKeyId: options.accessKeyId,
        secretAccessKey: Redacted.value(options.secretAccessKey),
        ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint })
      })
      const guarded = guard<ObjectStoreUnavailable>("object.store", { transient: isTransient })
      const work = <A>(promise: (signal: AbortSignal) => Promise<A>) =>
        Effect.tryPromise({
          try: promise,
          catch: (cause) => new ObjectStoreUnavailable({ cause: toldBy(cause) })
        }).pipe(
          guarded,
          Effect.mapError((error) =>
            error instanceof ObjectStoreUnavailable ? error : new ObjectStoreUnavailable({ cause: error })
          )
        )
      const onObject = <A>(name: string, promise: (signal: AbortSignal) => Promise<A>) =>
        isName(name) ? work(promise) : Effect.die(new Error(`No object can be called ${name}`))

      const list = Effect.fnUntraced(function* (prefix: string) {
        const found: Array<StoredObject> = []
        let startAfter: string | undefined
        while (true) {
          const page = yield* work(() =>
            client.list({ prefix, maxKeys: listed, ...(startAfter === undefined ? {} : { startAfter }) })
          )
          const contents = page.contents ?? []
          for (const { key, size = 0 } of contents) if (isName(key)) found.push({ name: key, size })
          startAfter = contents.at(-1)?.key
          if (page.isTruncated !== true || startAfter === undefined) return found
        }
      })

      // Bun's client has no way to say "If-None-Match", but it signs, and that header need not be.
      const upload = async (name: string, content: Uint8Array, signal: AbortSignal): Promise<boolean> => {
        const url = client.presign(name, { method: "PUT", expiresIn: signedForSeconds })
        const { status } = await fetch(url, { method: "PUT", headers: { "if-none-match": "*" }, body: content, signal })
        if (status >= 200 && status < 300) return true
        if (status === 412 || status === 409) return false
        throw new Answered(status)
      }
      const putNew = (name: string, content: Uint8Array) => onObject(name, (signal) => upload(name, content, signal))

      const get = (name: string) =>
        onObject(name, () =>
          client
            .file(name)
            .bytes()
            .catch((error: unknown) => {
              if (isMissing(error)) return undefined
              throw error
            })
        )
      const remove = (name: string) => onObject(name, () => client.delete(name))

      /** Copies of another bucket, or of one elsewhere that has the same name, are others. */
      const copies = join(
        options.copies,
        createHash("sha256").update(`${options.endpoint} ${options.bucket}`).digest("hex").slice(0, 16)
      )
      const localFile = Effect.fnUntraced(function* (name: string) {
        const path = join(copies, name)
        const isThere = yield* Effect.promise(() =>
          stat(path).then(
            () => true,
            () => false
          )
        )
        if (isThere) return path
        const content = yield* get(name)
        if (content === undefined) return yield* new ObjectStoreUnavailable({ cause: new Error(`${name} is gone`) })
        yield* Effect.tryPromise({
          try: () => replaceFile(copies, path, content),
          catch: (cause) => new ObjectStoreUnavailable({ cause })
        })
        return path
      })

      const probe = Effect.gen(function* () {
        const name = "merkato-conditional-write"
        yield* putNew(name, new Uint8Array())
        return yield* putNew(name, new Uint8Array())
      })
      const overwrites = yield* Effect.mapError(
        probe,
        (error) => new S3Unusable({ bucket: options.bucket, reason: lastCause(error.cause) })
      )
      if (overwrites) {
        return yield* new S3Unusable({
          bucket: options.bucket,
          reason: "it replaces objects that it was told not to (If-None-Match)"
        })
      }
      return ObjectStore.of({ list, putNew, get, remove, localFile })
    })
  )
