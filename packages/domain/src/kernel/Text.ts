import { Schema } from "effect"

/** Well-formed Unicode without NUL: what Postgres `text` can hold (it refuses U+0000 and lone surrogates). */
export const isStorable = Schema.makeFilter<string>(
  (text) => (text.isWellFormed() && !text.includes("\u0000") ? undefined : "Expected well-formed text without U+0000"),
  { title: "storable text" }
)

/** Text a person typed: 1 to `maximum` UTF-16 code units, not only white space. */
export const text = (maximum: number) =>
  Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum), isStorable, Schema.isPattern(/\S/))

/** Text that may be empty, at most `maximum` UTF-16 code units. */
export const optionalText = (maximum: number) => Schema.String.check(Schema.isMaxLength(maximum), isStorable)
