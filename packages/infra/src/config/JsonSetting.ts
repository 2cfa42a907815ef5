import { readFileSync } from "node:fs"
import { Config, Effect, Option, Schema, SchemaIssue } from "effect"

/** A setting that is JSON cannot be used. Names the variable and the place in it, never what stands there. */
export class BadSetting extends Schema.TaggedError<BadSetting>()("BadSetting", {
  variable: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.variable} cannot be used: ${this.reason}`
  }
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** The first thing that is wrong, in a sentence. */
const wordsOf = ({ issue }: Schema.SchemaError): string => {
  const [first] = issuesOf(issue).issues
  const path = (first?.path ?? []).map((segment) => String(typeof segment === "object" ? segment.key : segment))
  const message = (first?.message ?? "not what is expected").replaceAll(/\s+/g, " ")
  return path.length === 0 ? message : `${path.join(".")}: ${message}`
}

/**
 * Reads a variable that is a JSON object, or the path of a file with one, by its schema. An unset or empty one is `{}`:
 * the schema has the defaults. Unknown fields are refused, for they are misspelt ones.
 */
export const read = Effect.fnUntraced(function* <A, I>(variable: string, schema: Schema.Codec<A, I>) {
  const given = (yield* Config.option(Config.String(variable))).pipe(
    Option.map((text) => text.trim()),
    Option.getOrElse(() => "")
  )
  const bad = (reason: string) => new BadSetting({ variable, reason })
  const isPath = given !== "" && !given.startsWith("{")
  const text = isPath
    ? yield* Effect.try({
        try: () => readFileSync(given, "utf8"),
        catch: () => bad("expected a JSON object, or the path of a file with one that can be read")
      })
    : given || "{}"
  const json: unknown = yield* Effect.try({
    try: () => JSON.parse(text),
    catch: () => bad(isPath ? "the file is not JSON" : "it is not JSON")
  })
  // A list would pass for an object whose fields are all left out.
  if (Array.isArray(json)) return yield* bad("expected a JSON object, not a list")
  return yield* Schema.decodeUnknownEffect(schema)(json, { onExcessProperty: "error" }).pipe(
    Effect.mapError((error) => bad(wordsOf(error)))
  )
})
