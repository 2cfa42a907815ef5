/** Knows secrets by their looks, and by their names. */

export const removed = "[removed]"

const secretWords =
  "password|passwd|passphrase|secret|token|authorization|cookie|api[-_ ]?key|private[-_ ]?key|card[-_ ]?number|cvv2?|cvc2?|credentials?|jwt"

/** What secrets look like wherever they stand, and what is left of it. */
const patterns: ReadonlyArray<readonly [pattern: RegExp, replacement: string]> = [
  [/(?<![A-Za-z0-9])tok_[A-Za-z0-9_-]+/g, removed],
  [/eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*/g, removed],
  [/\b(Bearer|Basic)(?:\s+|%20)[A-Za-z0-9._~+/=%-]{6,}/gi, `$1 ${removed}`],
  [/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/@]+@/gi, `$1:${removed}@`],
  [
    new RegExp(
      `((?:${secretWords})["']?\\s*(?:=>|[=:])\\s*)(?!${removed.replace(/[[\]]/g, "\\$&")})("(?:[^"\\\\]|\\\\.)*"|'(?:[^'\\\\]|\\\\.)*'|[^\\s&,;}"']+)`,
      "gi"
    ),
    `$1${removed}`
  ],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, removed]
]

const secretName = new RegExp(`(?:${secretWords.replaceAll("[-_ ]?", "")}|setcookie|pwd|signingkeys?|encryptionkeys?)$`)

/** Whether whatever stands under this name is a secret: `paymentToken`, `X-Api-Key`, `client_secret`. */
export const isSecretName = (name: string): boolean => {
  const plain = name.toLowerCase().replaceAll(/[^a-z0-9]/g, "")
  return secretName.test(plain) || /^(?:pan|pin|cvn)$/.test(plain)
}

/** A text without what looks like a secret; card numbers are another matter. */
export const withoutSecrets = (text: string): string =>
  patterns.reduce((rest, [pattern, replacement]) => rest.replaceAll(pattern, replacement), text)
