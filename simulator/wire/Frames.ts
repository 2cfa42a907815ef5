/** Frames of Postgres' protocol, version 3: as much of them as the gate looks at. */

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

export const startup = (parameters: Readonly<Record<string, string>>): Buffer => {
  const body = Buffer.from(
    `\0\x03\0\0${Object.entries(parameters)
      .map(([name, value]) => `${name}\0${value}\0`)
      .join("")}\0`,
    "utf8"
  )
  return Buffer.concat([int32(body.length + 4), body])
}

export const simpleQuery = (sql: string): Buffer => {
  const text = Buffer.from(`${sql}\0`, "utf8")
  return Buffer.concat([Buffer.from("Q"), int32(text.length + 4), text])
}

/** BackendKeyData with a process id of the world's own. */
export const backendKey = (virtualPid: number): Buffer =>
  Buffer.concat([Buffer.from("K"), int32(12), int32(virtualPid), int32(0)])

/** Code of a CancelRequest, where a startup message has its version. */
export const cancelRequestCode = 80_877_102

export const char = (type: string): number => type.charCodeAt(0)

export const query = char("Q")
export const parse = char("P")
export const bind = char("B")
export const describe = char("D")
export const execute = char("E")
export const close = char("C")
export const sync = char("S")

/** A message of these parts. */
export const message = (type: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const length = parts.reduce((sum, part) => sum + part.length, 4)
  const bytes = Buffer.allocUnsafe(1 + length)
  bytes[0] = type
  bytes.writeUInt32BE(length, 1)
  let at = 5
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** Each message of a reply: its type and its bytes, header included. */
export function* messages(reply: Buffer): Generator<readonly [type: number, message: Buffer]> {
  for (let at = 0; at + 5 <= reply.length; ) {
    const end = at + 1 + reply.readUInt32BE(at + 1)
    yield [reply[at] ?? 0, reply.subarray(at, end)]
    at = end
  }
}

export const digest = (bytes: Uint8Array): string => Bun.CryptoHasher.hash("md5", bytes, "hex").slice(0, 12)

const dataRow = char("D")
export const commandComplete = char("C")
export const readyForQuery = char("Z")

/** Empty again after each digest. */
const replies = new Bun.CryptoHasher("md5")

/** Rows, command tags and the state of the transaction; not RowDescription, whose OIDs differ between databases. */
export const digestOfReply = (reply: Buffer): string => {
  for (let at = 0; at + 5 <= reply.length; ) {
    const end = at + 1 + reply.readUInt32BE(at + 1)
    const type = reply[at]
    if (type === dataRow || type === commandComplete || type === readyForQuery) replies.update(reply.subarray(at, end))
    at = end
  }
  return replies.digest("hex").slice(0, 12)
}

/** A field of an ErrorResponse: `C` is the SQLSTATE, `M` the message. */
const errorField = (message: Buffer, wanted: string): string => {
  for (let at = 5; at < message.length && message[at] !== 0; ) {
    const end = message.indexOf(0, at + 1)
    if (message[at] === char(wanted)) return message.toString("utf8", at + 1, end)
    at = end + 1
  }
  return ""
}

/** The SQLSTATE and text of the error in a reply, if there is one. */
export const errorOf = (reply: Buffer): { readonly code: string; readonly message: string } | undefined => {
  for (const [type, message] of messages(reply)) {
    if (type === char("E")) return { code: errorField(message, "C"), message: errorField(message, "M") }
  }
  return undefined
}

/** The rows of a reply to a simple query, as text; null as undefined. */
export const rowsOf = (reply: Buffer): ReadonlyArray<ReadonlyArray<string | undefined>> => {
  const rows: Array<ReadonlyArray<string | undefined>> = []
  for (const [type, message] of messages(reply)) {
    if (type !== char("D")) continue
    const row: Array<string | undefined> = []
    for (let field = 0, at = 7; field < message.readUInt16BE(5); field++) {
      const length = message.readInt32BE(at)
      row.push(length < 0 ? undefined : message.toString("utf8", at + 4, at + 4 + length))
      at += 4 + Math.max(length, 0)
    }
    rows.push(row)
  }
  return rows
}

/** Whether the session is still inside a transaction after the reply, and so keeps its locks. */
export const inTransaction = (reply: Buffer): boolean => {
  const status = reply.at(-1)
  return status === char("T") || status === char("E")
}
