import { createHmac } from "node:crypto"

/** Webhooks are signed as Standard Webhooks has it, and with X-BV-Signature for those who want no more than a HMAC. */
const prefix = "whsec_"

/** A secret as partners get it (Standard Webhooks), of 256 random bits in base64url. */
export const secretOf = (token: string): string => prefix + Buffer.from(token, "base64url").toString("base64")

/** `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64; its key are the bytes that the secret stands for. */
const standard = (secret: string, id: string, timestamp: string, body: string): string => {
  const key = Buffer.from(secret.slice(prefix.length), "base64")
  return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`
}

/** The HMAC-SHA256 of the body in hex; its key is the secret as the partner sees it. */
const ofBody = (secret: string, body: string): string => createHmac("sha256", secret).update(body).digest("hex")

export interface Message {
  /** Stays the same however often the message is sent: what receivers know a repeat by. */
  readonly id: string
  readonly body: string
  /** Of this try, in milliseconds. */
  readonly at: number
}

/** What of a request may be shown in a log: everything but the signatures. */
export const headersOf = ({ id, at }: Message) => ({
  "content-type": "application/json",
  "user-agent": "Merkato-Webhooks/1",
  "webhook-id": id,
  "webhook-timestamp": String(Math.floor(at / 1_000))
})

/** Signatures by the secret, and while it is being rotated by the one before, too. */
export const signatures = (message: Message, secret: string, previous: string | undefined) => {
  const timestamp = headersOf(message)["webhook-timestamp"]
  const secrets = previous === undefined ? [secret] : [secret, previous]
  return {
    "webhook-signature": secrets.map((each) => standard(each, message.id, timestamp, message.body)).join(" "),
    "x-bv-signature": ofBody(secret, message.body),
    ...(previous === undefined ? {} : { "x-bv-signature-previous": ofBody(previous, message.body) })
  }
}
