/** What a client was told in the end; its own message often says only that it did not get on. */
export const lastCause = (error: unknown): string => {
  if (error instanceof AggregateError && error.errors.length > 0) return lastCause(error.errors.at(-1))
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.cause.message !== "" ? lastCause(error.cause) : error.message
}
