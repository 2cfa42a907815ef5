import { readFile } from "node:fs/promises"
import { Effect, Result, Schema } from "effect"

/** How often the file is looked at. */
const lookEvery = "3 seconds"

/** The largest file that is read, in characters. */
const maxLength = 1_000_000

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))

/** The file cannot be read, or is no JSON. */
class PolicyFileUnreadable extends Schema.TaggedError<PolicyFileUnreadable>()("PolicyFileUnreadable", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** What is in the file; undefined when there is none. */
const read = (file: string) =>
  Effect.tryPromise({
    try: () => readFile(file, "utf8").catch((error: unknown) => (isMissing(error) ? undefined : Promise.reject(error))),
    catch: (error) => new PolicyFileUnreadable({ reason: error instanceof Error ? error.message : String(error) })
  })

const isMissing = (error: unknown) => error instanceof Error && "code" in error && error.code === "ENOENT"

/** No file is the same as one without overrides. */
const parse = (text: string | undefined) =>
  text === undefined
    ? Effect.succeed({})
    : text.length > maxLength
      ? Effect.fail(new PolicyFileUnreadable({ reason: `it is longer than ${maxLength} characters` }))
      : Effect.mapError(decode(text), () => new PolicyFileUnreadable({ reason: "it is not JSON" }))

/**
 * Applies what a file says, now and whenever it changes. A file that makes no sense is told once, and what was in force
 * stays in force: also at start, since a shop that does not open is worse than one with the limits of its code.
 */
export const follow = Effect.fnUntraced(function* <E extends { readonly message: string }>(
  file: string,
  apply: (content: unknown) => Effect.Effect<void, E>
) {
  /** What was found when last looked; nothing is said or done again before that changes. */
  let known: string | undefined
  const look = Effect.gen(function* () {
    const found = yield* Effect.result(read(file))
    const now = Result.isFailure(found)
      ? `unreadable ${found.failure.message}`
      : found.success && `text ${found.success}`
    if (now === known) return
    known = now
    yield* Effect.flatMap(Effect.flatMap(Effect.fromResult(found), parse), apply)
    yield* Effect.logInfo(
      now === undefined
        ? `There is no ${file} any more: the defaults are in force`
        : `The policies of ${file} are in force`
    )
  }).pipe(
    Effect.catch(({ message }: { readonly message: string }) =>
      Effect.logError(`The policies of ${file} are not used, and what was in force stays so: ${message}`)
    )
  )
  yield* look
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(lookEvery), look)))
})
