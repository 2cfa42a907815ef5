import { describe, expect, test } from "bun:test"
import * as Frames from "../wire/Frames.ts"
import { Prepared, type Translated } from "../wire/Prepared.ts"

const text = (...parts: ReadonlyArray<string>) => Buffer.from(parts.map((part) => `${part}\0`).join(""))
/** No types of parameters told; no formats, no values. */
const parse = (name: string, sql: string) => Frames.message(Frames.parse, text(name, sql), Buffer.alloc(2))
const bind = (name: string) => Frames.message(Frames.bind, text("", name), Buffer.alloc(6))
const closing = (name: string) => Frames.message(Frames.close, Buffer.from("S"), text(name))
const sync = Frames.message(Frames.char("S"))
const complete = (type: string) => Frames.message(Frames.char(type))

const keyOf = (sql: string) => Buffer.concat([text(sql), Buffer.alloc(2)]).toString("latin1")
const stock = keyOf("select 1 from stock")

/** What the server is sent, in short. */
const sent = ({ bytes }: Translated) =>
  [...Frames.messages(bytes)].map(([type, message]) => {
    const words = message.toString("latin1", 5).split("\0")
    return [String.fromCharCode(type), words[type === Frames.bind ? 1 : 0]].join(" ").trim()
  })
const told = (reply: Buffer) => [...Frames.messages(reply)].map(([type]) => String.fromCharCode(type)).join("")
const reply = (...types: ReadonlyArray<string>) => Buffer.concat(types.map(complete))

describe("what a session has prepared", () => {
  test("is parsed once, whoever asks under whatever name, and everybody is told that it was", () => {
    const session = new Prepared()
    const first = session.translate(() => stock, [parse("a1", "select 1 from stock"), bind("a1"), sync])
    expect(sent(first)).toEqual(["P s1", "B s1", "S"])
    expect(told(session.answered(first, reply("1", "2", "C", "Z")))).toBe("12CZ")
    const second = session.translate(() => stock, [parse("b7", "select 1 from stock"), bind("b7"), sync])
    expect(sent(second)).toEqual(["B s1", "S"])
    expect(told(session.answered(second, reply("2", "C", "Z")))).toBe("12CZ")
  })

  test("is parsed where a connection comes with what another session has parsed for it, without a word", () => {
    const session = new Prepared()
    const batch = session.translate(() => stock, [bind("a1"), sync])
    expect(sent(batch)).toEqual(["P s1", "B s1", "S"])
    expect(told(session.answered(batch, reply("1", "2", "C", "Z")))).toBe("2CZ")
    expect(sent(session.translate(() => stock, [bind("a1"), sync]))).toEqual(["B s1", "S"])
  })

  test("is told apart by its text and the types of its parameters", () => {
    const session = new Prepared()
    const other = keyOf("select 2 from stock")
    session.answered(
      session.translate(() => stock, [bind("a1"), sync]),
      reply("1", "2", "C", "Z")
    )
    expect(sent(session.translate(() => other, [bind("a1"), sync]))).toEqual(["P s2", "B s2", "S"])
  })

  test("is not what the server refused", () => {
    const session = new Prepared()
    const refused = session.translate(() => stock, [parse("a1", "select 1 from stock"), bind("a1"), sync])
    expect(told(session.answered(refused, reply("E", "Z")))).toBe("EZ")
    expect(sent(session.translate(() => stock, [bind("a1"), sync]))[0]).toStartWith("P ")
  })

  test("stays when a connection no longer wants it", () => {
    const session = new Prepared()
    session.answered(
      session.translate(() => stock, [bind("a1"), sync]),
      reply("1", "2", "C", "Z")
    )
    const closed = session.translate(() => stock, [closing("a1"), bind("a2"), sync])
    expect(sent(closed)).toEqual(["B s1", "S"])
    expect(told(session.answered(closed, reply("2", "C", "Z")))).toBe("32CZ")
  })

  test("is nothing that needs the session after its transaction", () => {
    const needs = (sql: string) => () => new Prepared().translate(() => keyOf(sql), [bind("a"), sync])
    for (const sql of [
      "select pg_try_advisory_lock($1)",
      "SET statement_timeout = 5",
      "listen orders",
      "create temp table t (n int)",
      "select set_config('lock_timeout', '5', false)"
    ]) {
      expect(needs(sql)).toThrow("a session of its own")
    }
    for (const sql of [
      "select pg_try_advisory_xact_lock($1)",
      "set local lock_timeout = 5",
      "set transaction isolation level serializable",
      "update orders set status = 'PAID'",
      "select set_config('lock_timeout', $1, true)"
    ]) {
      expect(needs(sql)).not.toThrow()
    }
  })
})
