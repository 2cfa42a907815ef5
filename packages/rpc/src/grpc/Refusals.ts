/** Typed errors in the words of gRPC: a status, and an `ErrorInfo` (AIP-193) from which they can be read again. */
import { Option, Schema, type SchemaAST } from "effect"
import { codeOf } from "@merkato/domain/kernel/Problem"

const byHttpStatus: Readonly<Record<number, Status>> = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  // What is asked for does not fit how things stand; the same again is refused again.
  409: "FAILED_PRECONDITION",
  422: "INVALID_ARGUMENT",
  429: "RESOURCE_EXHAUSTED",
  503: "UNAVAILABLE"
}

export type Status =
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "UNAUTHENTICATED"

/** The status that says what an HTTP status says. */
export const statusOf = (httpStatus: number): Status => byHttpStatus[httpStatus] ?? "INTERNAL"

/** An error's fields as metadata, which is text: what is not text becomes JSON. */
export const metadataOf = (fields: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)])
  )

type ErrorClass = Schema.Top & {
  readonly fields: Schema.Struct.Fields
  readonly DecodingServices: never
}

const parse = Option.liftThrowable((text: string): unknown => JSON.parse(text))

/** A field that is text stands there as it is. */
const fieldOf = ({ ast }: { readonly ast: SchemaAST.AST }, text: string): unknown =>
  ast._tag === "String" ? text : Option.getOrUndefined(parse(text))

const tagOf = ({ ast }: ErrorClass): string => String(ast.annotations?.["identifier"])

/** Reads one of these errors from the reason and metadata of an `ErrorInfo`; none when it is another, or not whole. */
export const reader = <const Errors extends ReadonlyArray<ErrorClass>>(errors: Errors) => {
  const byReason = new Map(errors.map((error) => [codeOf(tagOf(error)), error]))
  return (reason: string, metadata: Readonly<Record<string, string>>): Option.Option<Errors[number]["Type"]> => {
    const error = byReason.get(reason)
    if (error === undefined) return Option.none()
    const fields = Object.entries(error.fields).flatMap(([key, schema]) => {
      const text = metadata[key]
      return text === undefined ? [] : [[key, fieldOf(schema, text)]]
    })
    return Schema.decodeUnknownOption(error)({ ...Object.fromEntries(fields), _tag: tagOf(error) })
  }
}
