import { Schema } from "effect"

const storable = (pattern: string) =>
  Schema.makeFilter<string>(
    (text) =>
      text.isWellFormed() && !text.includes("\u0000") ? undefined : "Expected well-formed text without U+0000",
    { title: "storable text", toJsonSchema: () => ({ pattern }) }
  )

/** Well-formed Unicode without NUL: what Postgres `text` can hold (it refuses U+0000 and lone surrogates). */
export const isStorable = storable("^[^\\u0000]*$")

/**
 * Text a person typed: 1 to `maximum` code points (as JSON Schema and Postgres count), not only white space. To those who
 * read the document one pattern says both; the second check has no `u`, so it is not written there as well.
 */
export const text = (maximum: number) =>
  Schema.String.check(
    Schema.isMinLength(1),
    Schema.isMaxCodePoints(maximum),
    storable("^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"),
    Schema.isPattern(/\S/)
  )

/** Text that may be empty, at most `maximum` code points. */
export const optionalText = (maximum: number) => Schema.String.check(Schema.isMaxCodePoints(maximum), isStorable)
