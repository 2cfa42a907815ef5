import { Schema } from "effect"

/** An answer, and whether it is the first one again (`Idempotent-Replayed: true` at the edge). */
export const answered = <A extends Schema.Top>(answer: A) => Schema.Struct({ answer, replayed: Schema.Boolean })

/** A refusal that was given before under the same Idempotency-Key. */
export const Replayed = <E extends Schema.Top>(refusal: E) => Schema.TaggedStruct("Replayed", { refusal })

export interface Replayed<E> {
  readonly _tag: "Replayed"
  readonly refusal: E
}
