/** Stands in for `node:crypto` in everything that is simulated (see Install.ts): hashing is real, randomness is the run's. */
import * as crypto from "node:crypto"
import * as Guard from "./Guard.ts"

// oxlint-disable-next-line oxc/no-barrel-file
export * from "node:crypto"

export const randomBytes = (size: number): Buffer => Guard.randomBytes(size) ?? crypto.randomBytes(size)

export const randomUUID: typeof crypto.randomUUID = (...args) => {
  Guard.refuse("node:crypto randomUUID")
  return crypto.randomUUID(...args)
}

export const randomInt = (max: number): number => {
  Guard.refuse("node:crypto randomInt")
  return crypto.randomInt(max)
}

export const randomFillSync = <A extends NodeJS.ArrayBufferView>(buffer: A): A => {
  Guard.refuse("node:crypto randomFillSync")
  return crypto.randomFillSync(buffer)
}
