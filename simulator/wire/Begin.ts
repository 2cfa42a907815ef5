import * as Frames from "./Frames.ts"

const begun = Frames.message(Frames.commandComplete, Buffer.from("BEGIN\0"))
const inTransaction = Frames.message(Frames.readyForQuery, Buffer.from("T"))

/** What the server answers to each message of a BEGIN. */
const answers: ReadonlyMap<number | undefined, ReadonlyArray<Buffer>> = new Map([
  [Frames.query, [begun, inTransaction]],
  [Frames.parse, [Frames.message(Frames.char("1"))]],
  [Frames.bind, [Frames.message(Frames.char("2"))]],
  [Frames.close, [Frames.message(Frames.char("3"))]],
  [Frames.describe, [Frames.message(Frames.char("n"))]],
  [Frames.execute, [begun]],
  [Frames.sync, [inTransaction]]
])

/** BEGIN without any modes, as the server would be asked with a simple query. */
export const bytes = Frames.simpleQuery("begin")

/**
 * The server's answer to the messages of a plain BEGIN outside of a transaction, which is always the same; undefined for
 * what has to be asked.
 */
export const answerTo = (sql: string, messages: ReadonlyArray<Buffer>): Buffer | undefined => {
  if (sql.toLowerCase() !== "begin") return undefined
  const known = messages.map(([type]) => answers.get(type))
  return known.includes(undefined) ? undefined : Buffer.concat(known.flatMap((each) => each ?? []))
}
