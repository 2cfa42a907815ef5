import { afterAll, describe, expect, test } from "bun:test"
import { ConfigProvider, Effect, Schema } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { BadSetting, read } from "../src/config/JsonSetting.ts"

const Oven = Schema.Struct({
  degrees: Schema.Int.check(Schema.isBetween({ minimum: 50, maximum: 250 })).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed(180))
  ),
  shelves: Schema.Array(Schema.Struct({ cakes: Schema.Int })).pipe(Schema.withDecodingDefaultKey(Effect.succeed([])))
})

const folder = mkdtempSync(join(tmpdir(), "merkato-setting-"))
afterAll(() => rmSync(folder, { recursive: true }))

const file = (name: string, text: string) => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const readFrom = (env: Record<string, string>) =>
  read("OVEN", Oven).pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })),
    Effect.runPromise
  )
const refusal = (text: string) =>
  Effect.flip(read("OVEN", Oven)).pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: { OVEN: text } })),
    Effect.runPromise
  )

describe("a setting that is JSON", () => {
  test("has its defaults when it is not set, empty, or an empty object", async () => {
    const defaults = { degrees: 180, shelves: [] }
    for (const env of [{}, { OVEN: "" }, { OVEN: "  \n" }, { OVEN: "{}" }]) {
      expect(await readFrom(env)).toEqual(defaults)
    }
  })

  test("is read from the variable, or from the file that it names", async () => {
    const json = '{"degrees": 200, "shelves": [{"cakes": 2}]}'
    const expected = { degrees: 200, shelves: [{ cakes: 2 }] }
    expect(await readFrom({ OVEN: ` ${json}\n` })).toEqual(expected)
    expect(await readFrom({ OVEN: file("oven.json", `\n${json}\n`) })).toEqual(expected)
  })

  test("that cannot be used is one sentence: the variable, the place and what is wrong, never what stands there", async () => {
    const cases: ReadonlyArray<readonly [text: string, reason: RegExp]> = [
      ["{degrees: 200}", /^it is not JSON$/],
      [join(folder, "nowhere.json"), /^expected a JSON object, or the path of a file/],
      [folder, /^expected a JSON object, or the path of a file/],
      [file("text.json", "secret!"), /^the file is not JSON$/],
      [file("list.json", "[1]"), /^expected a JSON object, not a list$/],
      [file("nothing.json", ""), /^the file is not JSON$/],
      ['{"degrees": 300}', /^degrees: .*between 50 and 250/],
      ['{"degrees": "hot"}', /^degrees: /],
      ['{"shelves": [{"cakes": 1}, {"cakes": 1.5}]}', /^shelves\.1\.cakes: /],
      ['{"shelves": [{}]}', /^shelves\.0\.cakes: /],
      ['{"degree": 200}', /^degree: /]
    ]
    for (const [text, reason] of cases) {
      const error = await refusal(text)
      expect(error).toBeInstanceOf(BadSetting)
      if (!(error instanceof BadSetting)) continue
      expect(error.reason).toMatch(reason)
      expect(error.message).toBe(`OVEN cannot be used: ${error.reason}`)
      expect(error.message).not.toMatch(/\n|secret!|300|hot/)
    }
  })
})
