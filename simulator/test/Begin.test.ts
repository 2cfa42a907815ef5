import { describe, expect, test } from "bun:test"
import * as Begin from "../wire/Begin.ts"
import * as Frames from "../wire/Frames.ts"

const of = (types: string) => [...types].map((type) => Frames.message(Frames.char(type)))
const told = (reply: Buffer | undefined) =>
  reply === undefined ? "asked" : [...Frames.messages(reply)].map(([type]) => String.fromCharCode(type)).join("")

describe("a BEGIN", () => {
  test("is answered message by message, as the server would", () => {
    expect(told(Begin.answerTo("BEGIN", of("PBDES")))).toBe("12nCZ")
    expect(told(Begin.answerTo("BEGIN", of("CBES")))).toBe("32CZ")
    expect(told(Begin.answerTo("begin", of("Q")))).toBe("CZ")
    expect(Frames.inTransaction(Begin.answerTo("BEGIN", of("BES")) ?? Buffer.alloc(0))).toBe(true)
  })

  test("is left to the server when it says more, or holds what is not known", () => {
    expect(told(Begin.answerTo("BEGIN ISOLATION LEVEL SERIALIZABLE", of("BES")))).toBe("asked")
    expect(told(Begin.answerTo("COMMIT", of("BES")))).toBe("asked")
    expect(told(Begin.answerTo("BEGIN", of("BdS")))).toBe("asked")
  })
})
