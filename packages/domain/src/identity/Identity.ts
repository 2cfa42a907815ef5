import { Schema } from "effect"
import { UserId } from "../kernel/Ids.ts"
import { isStorable, text } from "../kernel/Text.ts"

/** An e-mail address as the WHATWG HTML standard checks it, at most 254 characters (RFC 5321), lower-cased by identity. */
export const Email = Schema.String.check(
  Schema.isMaxLength(254),
  Schema.isPattern(
    /^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+$/u
  )
)

/** 8 to 128 characters (NIST SP 800-63B asks for at least 8 and no rules about their kind). */
export const Password = Schema.String.check(Schema.isMinCodePoints(8), Schema.isMaxCodePoints(128), isStorable)

export const PersonName = text(200)

/** What a sign-in gives: a short-lived access token (JWT) and a refresh token that works once. */
export class Session extends Schema.Class<Session>("Session")({
  userId: UserId,
  accessToken: Schema.String,
  refreshToken: Schema.String,
  /** Seconds until the access token expires. */
  expiresIn: Schema.Int
}) {}

/** Somebody registered with this address before. */
export class EmailTaken extends Schema.TaggedError<EmailTaken>()("EmailTaken", {}, { httpApiStatus: 409 }) {
  override get message() {
    return "An account with this e-mail address exists already"
  }
}

/** Address and password do not belong together; which of the two is wrong is not said. */
export class InvalidCredentials extends Schema.TaggedError<InvalidCredentials>()(
  "InvalidCredentials",
  {},
  { httpApiStatus: 401 }
) {
  override get message() {
    return "E-mail address or password is wrong"
  }
}

/** The refresh token is unknown, expired, or was used before; a used one ends its whole session family. */
export class InvalidRefreshToken extends Schema.TaggedError<InvalidRefreshToken>()(
  "InvalidRefreshToken",
  {},
  { httpApiStatus: 401 }
) {
  override get message() {
    return "The refresh token is not valid; sign in again"
  }
}
