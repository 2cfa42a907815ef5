/** Card numbers (ISO/IEC 7812): the shop must never see one, so it has to know one when it does. */

/** Most and fewest digits of a card number. */
const cardDigits = { minimum: 13, maximum: 19 } as const

/** The Luhn check (ISO/IEC 7812-1, annex B) on a string of digits. */
export const passesLuhn = (digits: string): boolean => {
  let sum = 0
  for (let at = 0; at < digits.length; at++) {
    const digit = digits.charCodeAt(digits.length - 1 - at) - 48
    const doubled = at % 2 === 1 ? digit * 2 : digit
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

/**
 * Whether digits may be a card number: 13 to 19 of them, passing Luhn. No scheme's cards begin with 0 or 1 (but for 1800 of 15 digits,
 * and airlines' own), and that lets times in milliseconds, microseconds and nanoseconds pass.
 */
export const isCardNumber = (digits: string): boolean =>
  digits.length >= cardDigits.minimum &&
  digits.length <= cardDigits.maximum &&
  /^(?:[2-9]\d*|1800\d{11})$/.test(digits) &&
  passesLuhn(digits)

/** Whether an id or a token is, or has as a part of its own, a card number: `tok_4111-1111-1111-1111`. */
export const looksLikeCardNumber = (text: string): boolean =>
  [...text.matchAll(/(?<![A-Za-z0-9])\d(?:[-_]*\d){12,18}(?![A-Za-z0-9])/g)].some(([found]) =>
    isCardNumber(found.replaceAll(/\D/g, ""))
  )
