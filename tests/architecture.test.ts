// The rules of the house that a compiler does not know: who may import whom, and what nobody may write. Each rule is a
// pure function from source files to findings, shown here on a bad sample first and then held against the repository.
import { describe, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { join, posix } from "node:path"

interface Source {
  readonly path: string
  readonly text: string
}

interface Finding {
  readonly path: string
  readonly line: number
  readonly message: string
}

type Rule = (files: ReadonlyArray<Source>) => ReadonlyArray<Finding>

/** Findings that are right as they are. Each entry says why, and one that no longer matches anything must go. */
const allowed: ReadonlyArray<{
  readonly rule: string
  readonly path: string
  readonly message: string
  readonly why: string
}> = []

// ---------------------------------------------------------------------------------------------------------------------
// Reading TypeScript: which characters are code, which are comments, which are the text of literals.

interface Literal {
  readonly start: number
  readonly line: number
  readonly quote: string
  /** Its characters; every `${…}` of a template is a `?`. */
  readonly text: string
  /** The code since the literal before it, or since the start. */
  readonly before: string
}

interface Scan {
  /** The source with comments and the text of literals blanked; offsets and lines are kept. */
  readonly code: string
  /** The comments with everything else blanked; offsets and lines are kept. */
  readonly comments: string
  readonly literals: ReadonlyArray<Literal>
}

const regexMayFollow =
  /(?:^|[([{}=,;:!&|?+\-*%~^<>]|\b(?:return|typeof|case|in|of|yield|await|void|delete|do|else))\s*$/

const lineAt = (text: string, offset: number): number => text.slice(0, offset).split("\n").length

const scans = new Map<string, Scan>()

/** Several rules read the same file. */
const scan = (source: string): Scan => {
  const known = scans.get(source) ?? scanned(source)
  scans.set(source, known)
  return known
}

const scanned = (source: string): Scan => {
  const code = source.split("")
  const comments = source.replace(/[^\n]/g, " ").split("")
  const literals: Array<Literal> = []
  let lastLiteralEnd = 0
  let at = 0

  const blank = (from: number, to: number) => {
    for (let i = from; i < to && i < code.length; i++) if (code[i] !== "\n") code[i] = " "
  }
  const codeBefore = (from: number, to: number) => code.slice(from, to).join("")
  const comment = (end: number) => {
    for (let i = at; i < end; i++) comments[i] = source[i] ?? " "
    blank(at, end)
    at = end
  }
  const endOr = (found: number, otherwise: number) => (found === -1 ? otherwise : found)

  const string = (quote: string) => {
    const start = at++
    while (at < source.length && source[at] !== quote && source[at] !== "\n") at += source[at] === "\\" ? 2 : 1
    blank(start + 1, at)
    const before = codeBefore(lastLiteralEnd, start)
    literals.push({ start, line: lineAt(source, start), quote, text: source.slice(start + 1, at), before })
    lastLiteralEnd = ++at
  }

  const template = () => {
    const start = at++
    const before = codeBefore(lastLiteralEnd, start)
    let text = ""
    while (at < source.length && source[at] !== "`") {
      if (source.startsWith("${", at)) {
        at += 2
        block("}")
        text += "?"
        at++
        continue
      }
      const length = source[at] === "\\" ? 2 : 1
      text += source.slice(at, at + length)
      blank(at, at + length)
      at += length
    }
    literals.push({ start, line: lineAt(source, start), quote: "`", text, before })
    lastLiteralEnd = ++at
  }

  const regex = () => {
    const line = source.slice(at, endOr(source.indexOf("\n", at), source.length))
    const found = /^\/(?:[^\\/[]|\\.|\[(?:[^\\\]]|\\.)*\])+\//.exec(line)
    if (found === null) return at++
    blank(at + 1, at + found[0].length - 1)
    return (at += found[0].length)
  }

  /** Up to, and not including, the bracket that closes what was opened before. */
  const block = (until: string | undefined): void => {
    let depth = 0
    while (at < source.length) {
      const char = source[at] ?? ""
      if (char === until && depth === 0) return
      if (char === "{") depth++
      if (char === "}") depth--
      if (source.startsWith("//", at)) comment(endOr(source.indexOf("\n", at), source.length))
      else if (source.startsWith("/*", at)) comment(endOr(source.indexOf("*/", at + 2), source.length) + 2)
      else if (char === '"' || char === "'") string(char)
      else if (char === "`") template()
      else if (char === "/" && regexMayFollow.test(codeBefore(Math.max(0, at - 40), at))) regex()
      else at++
    }
  }

  block(undefined)
  return { code: code.join(""), comments: comments.join(""), literals: literals.toSorted((a, b) => a.start - b.start) }
}

const isTypeScript = ({ path }: Source) => /\.[cm]?[jt]sx?$/.test(path)

/** Every place where a pattern matches. */
const matches = (path: string, text: string, patterns: ReadonlyArray<RegExp>, message: string): Array<Finding> =>
  patterns.flatMap((pattern) =>
    [...text.matchAll(new RegExp(pattern, `${pattern.flags}g`))].map((found) => ({
      path,
      line: lineAt(text, found.index),
      message: `${message}: ${found[0].trim().replace(/\s+/g, " ")}`
    }))
  )

// ---------------------------------------------------------------------------------------------------------------------
// Imports

interface Import {
  readonly path: string
  readonly line: number
  readonly specifier: string
  readonly clause: string
  readonly typeOnly: boolean
  /** A path in this repository, when the specifier means one. */
  readonly target: string | undefined
}

const importKeyword = /(?:\bfrom|\bimport|\bimport\s*\(|\brequire\s*\()\s*$/

const targetOf = (path: string, specifier: string): string | undefined => {
  if (specifier.startsWith(".")) return posix.join(posix.dirname(path), specifier)
  const [, kind, name, rest] = /^@merkato\/(app-)?([^/]+)(?:\/(.*))?$/.exec(specifier) ?? []
  if (name === undefined) return undefined
  return `${kind === undefined ? "packages" : "apps"}/${name}/src/${rest ?? ""}`
}

const importsOf = (file: Source): ReadonlyArray<Import> =>
  scan(file.text)
    .literals.filter(({ quote, before }) => quote !== "`" && importKeyword.test(before))
    .map(({ before, line, text }) => {
      const clause = /\b(?:import|export)\b(?![^]*\b(?:import|export)\b)[^]*$/.exec(before)?.[0] ?? before
      return {
        path: file.path,
        line,
        specifier: text,
        clause,
        typeOnly: /^(?:import|export)\s+type\b/.test(clause),
        target: targetOf(file.path, text)
      }
    })

const unitOf = (path: string): string => path.split("/").slice(0, 2).join("/")

const isEffect = (specifier: string) => /^effect(?:\/|$)/.test(specifier)

/** What each package may import from outside; its own files are always its own business. */
const mayImport: Readonly<Record<string, (found: Import) => boolean>> = {
  "packages/domain": ({ specifier }) => isEffect(specifier),
  "packages/rpc": ({ specifier, target }) =>
    target === undefined ? isEffect(specifier) : unitOf(target) === "packages/domain",
  "packages/infra": ({ target }) => target === undefined || unitOf(target) === "packages/domain",
  "packages/services": ({ specifier, target, typeOnly }) =>
    target === undefined
      ? isEffect(specifier) || (typeOnly && specifier === "@effect/sql-pg")
      : ["packages/domain", "packages/rpc", "packages/infra"].includes(unitOf(target))
}

/** apps → services → {rpc, infra} → domain, and never back. */
const importsPointOneWay: Rule = (files) =>
  files
    .filter(isTypeScript)
    .flatMap(importsOf)
    .flatMap((found) => {
      const from = unitOf(found.path)
      const to = found.target === undefined ? undefined : unitOf(found.target)
      if (to === from) return []
      const finding = (message: string) => [{ path: found.path, line: found.line, message }]
      if (to !== undefined && found.specifier.startsWith("."))
        return finding(`reaches into ${to} by a relative path: ${found.specifier}`)
      if (to?.startsWith("apps/")) return finding(`imports an app: ${found.specifier}`)
      if (from.startsWith("apps/")) return []
      const rule = mayImport[from]
      if (rule === undefined) return finding(`${from} has no rule for its imports`)
      return rule(found) ? [] : finding(`${from} must not import ${found.specifier}`)
    })

/** Packages whose entrance loads all they have, and what that costs. */
const barrels: Readonly<Record<string, string>> = {
  "@effect/platform-node": "a Redis client of 800 files, which is a third of the time to load the shop"
}

/** What is big is loaded where it is wanted. */
const barrelsAreNotLoaded: Rule = (files) =>
  files
    .filter(isTypeScript)
    .flatMap(importsOf)
    .flatMap(({ line, path, specifier, typeOnly }) => {
      const cost = typeOnly ? undefined : barrels[specifier]
      return cost === undefined
        ? []
        : [{ path, line, message: `loads all of ${specifier}: ${cost}; import the module that is wanted` }]
    })

const noCycles: Rule = (files) => {
  const edges = new Map<string, Map<string, Import>>()
  for (const found of files.filter(isTypeScript).flatMap(importsOf)) {
    const from = unitOf(found.path)
    const to = found.target === undefined ? from : unitOf(found.target)
    if (to !== from) edges.set(from, (edges.get(from) ?? new Map<string, Import>()).set(to, found))
  }
  const done = new Set<string>()
  const visit = (unit: string, way: ReadonlyArray<string>): ReadonlyArray<Finding> => {
    if (done.has(unit)) return []
    const findings = [...(edges.get(unit) ?? [])].flatMap(([next, found]) =>
      way.includes(next)
        ? [{ path: found.path, line: found.line, message: `closes the cycle ${[...way, next].join(" → ")}` }]
        : visit(next, [...way, next])
    )
    done.add(unit)
    return findings
  }
  return [...edges.keys()].flatMap((unit) => visit(unit, [unit]))
}

const services = "packages/services/src/"
/** What composes contexts into deployments, and so knows them all; no context knows any of these. */
const composition = new Set(
  ["contexts.ts", "deployment.ts", "eventBackbone.ts", "paymentProviders.ts", "peers.ts"].map(
    (file) => `${services}${file}`
  )
)

/** `orders` of packages/services/src/orders/…; nothing for files beside the contexts and for folders like `_shared`. */
const contextOf = (path: string): string | undefined => {
  const [folder, ...rest] = path.startsWith(services) ? path.slice(services.length).split("/") : []
  return folder === undefined || rest.length === 0 || folder.startsWith("_") ? undefined : folder
}

/** Contexts meet only through packages/rpc; the composition alone knows them all. */
const contextsMeetThroughContracts: Rule = (files) =>
  files
    .filter((file) => isTypeScript(file) && file.path.startsWith(services) && !composition.has(file.path))
    .flatMap(importsOf)
    .flatMap(({ line, path, specifier, target }) => {
      if (target === undefined) return []
      const from = contextOf(path)
      const to = contextOf(target)
      const isComposition = composition.has(target.replace(/(?:\.ts)?$/, ".ts"))
      return isComposition || (to !== undefined && to !== from)
        ? [{ path, line, message: `${from ?? "shared code"} must not import ${specifier}` }]
        : []
    })

// ---------------------------------------------------------------------------------------------------------------------
// Time, randomness and environment: through Effect in TypeScript, as parameters in SQL. The simulator depends on it.

const pastEffect: ReadonlyArray<RegExp> = [
  /\bDate\.now\b/,
  /\bnew\s+Date\b(?!\s*\(\s*[^\s)])/,
  /(?<!\bnew\s+)(?<![\w.$])Date\s*\(\s*\)/,
  /\bMath\.random\b/,
  /\bperformance\.(?:now|timeOrigin)\b/,
  /\bprocess\.(?:env|hrtime|uptime)\b/,
  /\b(?:Bun|import\.meta)\.env\b/,
  /\bBun\.(?:nanoseconds|sleep|sleepSync|randomUUIDv5|randomUUIDv7)\b/,
  /\bcrypto\.(?:randomUUID|getRandomValues)\b/,
  /(?:(?<![\w.$])|\bglobalThis\.)set(?:Timeout|Interval|Immediate)\s*\(/
]

const clocksAndDiceComeFromEffect: Rule = (files) =>
  files
    .filter((file) => isTypeScript(file) && /^packages\/(?:domain|services)\/src\//.test(file.path))
    .flatMap((file) => [
      ...matches(file.path, scan(file.text).code, pastEffect, "past Effect"),
      ...importsOf(file)
        .filter(({ specifier }) => /^(?:node:)?crypto$/.test(specifier))
        .filter(({ clause, typeOnly }) => !typeOnly && /\brandom|\bwebcrypto\b|^import\s+(?:\*|\w)|\($/.test(clause))
        .map(({ line, path, specifier }) => ({ path, line, message: `past Effect: randomness of ${specifier}` }))
    ])

const ofTheServer: ReadonlyArray<RegExp> = [
  /\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(/i,
  /\b(?:current_timestamp|current_date|current_time|localtimestamp|localtime)\b/i,
  /\b(?:random|random_normal|gen_random_uuid|gen_random_bytes|uuidv4|uuidv7|uuid_generate_v\w+)\s*\(/i
]

/** `timestamp 'now'` and `'today'::date` are clocks too. */
const clockLiterals = [
  /\b(?:timestamp|timestamptz|date|time)\s+'(?:now|today|tomorrow|yesterday)'/i,
  /'(?:now|today|tomorrow|yesterday)'\s*::/i
]

const withoutSqlCommentsAndStrings = (sql: string) =>
  sql.replace(/--[^\n]*|\/\*[^]*?\*\/|'(?:[^']|'')*'/g, (found) => found.replace(/[^\n]/g, " "))

const startsLikeSql =
  /^\s*(?:with|select|insert\s+into|update|delete\s+from|merge\s+into|create|alter|drop|truncate|set\s+\w+\s*(?:=|to)|refresh|explain)\b/i
const soundsLikeSql = /\b(?:select|from|where|values|returning|default|order\s+by)\b/i

const isSql = ({ before, quote, text }: Literal): boolean =>
  (quote === "`" && /\bsql\s*(?:<[^`;]*>)?\s*$/i.test(before)) ||
  /\bsql\.\w+\(\s*$/i.test(before) ||
  startsLikeSql.test(text) ||
  soundsLikeSql.test(text)

const sqlTakesTimeAndIdsAsParameters: Rule = (files) => {
  const check = (path: string, line: number, sql: string) =>
    [
      ...matches(path, withoutSqlCommentsAndStrings(sql), ofTheServer, "the server's clock or dice in SQL"),
      ...matches(path, sql.replace(/--[^\n]*/g, ""), clockLiterals, "the server's clock in SQL")
    ].map((finding) => ({ ...finding, line: finding.line + line - 1 }))
  return files
    .filter(({ path }) => /^packages\/(?:services|infra)\/src\//.test(path))
    .flatMap((file) => {
      if (file.path.endsWith(".sql")) return check(file.path, 1, file.text)
      if (!isTypeScript(file)) return []
      return scan(file.text)
        .literals.filter(isSql)
        .flatMap(({ line, text }) => check(file.path, line, text))
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// What nobody may write

const anyType = [/\bas\s+any\b/, /:\s*any\b/, /[<,|&]\s*any\s*(?=[>,[\]|&])/, /\bany\s*\[\s*\]/]

const typesAreNotSilenced: Rule = (files) =>
  files.filter(isTypeScript).flatMap((file) => {
    const { code, comments } = scan(file.text)
    return [
      ...matches(file.path, code, anyType, "any"),
      ...matches(file.path, comments, [/@ts-(?:ignore|expect-error|nocheck)\b/], "silences the compiler")
    ]
  })

/** Only comments: XXX is a currency code of ISO 4217 ("no currency"). */
const nothingIsLeftOpen: Rule = (files) =>
  files.flatMap((file) => {
    const comments = isTypeScript(file) ? scan(file.text).comments : file.text
    return matches(file.path, comments, [/\b(?:TODO|FIXME|XXX|HACK)\b/], "left open")
  })

// ---------------------------------------------------------------------------------------------------------------------
// Folders

const contextsHaveOneEntrance: Rule = (files) => {
  const contexts = new Set(files.map(({ path }) => contextOf(path)).filter((context) => context !== undefined))
  const paths = new Set(files.map(({ path }) => path))
  return [...contexts]
    .map((context) => `${services}${context}/index.ts`)
    .filter((path) => !paths.has(path))
    .map((path) => ({ path, line: 1, message: "is missing" }))
}

const migrationsAreNumbered: Rule = (files) => {
  const folders = new Map<string, Array<string>>()
  for (const { path } of files) {
    const [, folder, name] = /^(.*\/migrations)\/(.+)$/.exec(path) ?? []
    if (folder !== undefined && name !== undefined) folders.set(folder, [...(folders.get(folder) ?? []), name])
  }
  return [...folders].flatMap(([folder, names]) => {
    const misnamed = names.filter((name) => !/^\d{4}_[a-z0-9]+(?:_[a-z0-9]+)*\.sql$/.test(name) && name !== "index.ts")
    const numbers = names.filter((name) => name.endsWith(".sql")).map((name) => name.slice(0, 4))
    const gaps = numbers.toSorted().flatMap((number, index) => {
      const expected = String(index + 1).padStart(4, "0")
      return number === expected ? [] : [`${number} stands where ${expected} should`]
    })
    return [...misnamed.map((name) => `${name} is not NNNN_name.sql`), ...gaps.slice(0, 1)].map((message) => ({
      path: folder,
      line: 1,
      message
    }))
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules on bad samples: each finds what it is for, and nothing in the good ones.

const inFile = (path: string, ...lines: ReadonlyArray<string>): Source => ({ path, text: lines.join("\n") })

const found = (rule: Rule, ...files: ReadonlyArray<Source>): ReadonlyArray<string> =>
  rule(files).map(({ line, message, path }) => `${path.replace(/^packages\//, "")}:${line} ${message}`)

describe("reading TypeScript", () => {
  test("comments, strings, templates and regular expressions are told apart", () => {
    const { code, comments, literals } = scan(
      [
        'const a = "// no comment" // a comment with "quotes"',
        "const b = `text ${c(`inner ${'deep'}`)} /* text */` /* block",
        "`still` */ + d",
        'const e = /["`\\/]\\/\\// ; const f = g / h / "i"'
      ].join("\n")
    )
    expect(literals.map(({ line, text }) => [line, text])).toEqual([
      [1, "// no comment"],
      [2, "text ? /* text */"],
      [2, "inner ?"],
      [2, "deep"],
      [4, "i"]
    ])
    expect(comments.split(/\s{2,}|\n/).filter((part) => part !== "")).toEqual([
      '// a comment with "quotes"',
      "/* block",
      "`still` */"
    ])
    expect(code.replace(/ +/g, " ").split("\n")).toEqual([
      'const a = " " ',
      "const b = ` ${c(` ${' '}`)} ` ",
      " + d",
      'const e = / / ; const f = g / h / " "'
    ])
  })

  test("an unfinished string or template does not run away", () => {
    expect(scan("const a = 'x\nconst b = 1").code).toBe("const a = ' \nconst b = 1")
    expect(() => scan("`${`${")).not.toThrow()
  })

  test("every way to import is seen, and whether it is of types alone", () => {
    const file = inFile(
      "packages/rpc/src/orders/OrdersRpc.ts",
      'import { Effect } from "effect"',
      "import type {",
      "  Order // of the domain",
      '} from "@merkato/domain/orders/Order"',
      'import "./side.ts"',
      "export const one = 1",
      "export type {",
      '} from "../types.ts"',
      'export * from "../a.ts"',
      'const later = import("node:fs"); const old = require("b")',
      'const text = \'import x from "not"\'; Array.from("c")',
      'import sql from "./x.sql" with { type: "text" }'
    )
    expect(importsOf(file).map(({ line, specifier, target, typeOnly }) => [line, specifier, typeOnly, target])).toEqual(
      [
        [1, "effect", false, undefined],
        [4, "@merkato/domain/orders/Order", true, "packages/domain/src/orders/Order"],
        [5, "./side.ts", false, "packages/rpc/src/orders/side.ts"],
        [8, "../types.ts", true, "packages/rpc/src/types.ts"],
        [9, "../a.ts", false, "packages/rpc/src/a.ts"],
        [10, "node:fs", false, undefined],
        [10, "b", false, undefined],
        [12, "./x.sql", false, "packages/rpc/src/orders/x.sql"]
      ]
    )
  })
})

describe("a rule that cannot fail is no rule", () => {
  test("an entrance that loads everything is found", () => {
    const file = inFile(
      "apps/shop/src/main.ts",
      'import { NodeServices } from "@effect/platform-node"',
      'import * as NodeServices from "@effect/platform-node/NodeServices"',
      'import type { NodeServices } from "@effect/platform-node"'
    )
    expect(found(barrelsAreNotLoaded, file).map((line) => line.split(":", 2).join(":"))).toEqual([
      "apps/shop/src/main.ts:1 loads all of @effect/platform-node"
    ])
  })

  test("imports against the way are found", () => {
    const bad = [
      inFile("packages/domain/src/a.ts", 'import "node:fs"', 'import "@merkato/infra/sql"', 'import "effectful"'),
      inFile("packages/rpc/src/a.ts", 'import "@effect/sql-pg"', 'import "@merkato/services/orders/index"'),
      inFile("packages/infra/src/a.ts", 'import "@merkato/rpc/orders/OrdersRpc"', 'import "../../domain/src/a.ts"'),
      inFile("packages/services/src/a/a.ts", 'import { PgClient } from "@effect/sql-pg"', 'import "node:fs"'),
      inFile("packages/services/src/a/b.ts", 'import "@merkato/app-shop/main"'),
      inFile("packages/other/src/a.ts", 'import "effect"'),
      inFile("apps/shop/src/main.ts", 'import "../../gateway/src/main.ts"', 'import "@merkato/app-gateway/main"')
    ]
    expect(found(importsPointOneWay, ...bad)).toEqual([
      "domain/src/a.ts:1 packages/domain must not import node:fs",
      "domain/src/a.ts:2 packages/domain must not import @merkato/infra/sql",
      "domain/src/a.ts:3 packages/domain must not import effectful",
      "rpc/src/a.ts:1 packages/rpc must not import @effect/sql-pg",
      "rpc/src/a.ts:2 packages/rpc must not import @merkato/services/orders/index",
      "infra/src/a.ts:1 packages/infra must not import @merkato/rpc/orders/OrdersRpc",
      "infra/src/a.ts:2 reaches into packages/domain by a relative path: ../../domain/src/a.ts",
      "services/src/a/a.ts:1 packages/services must not import @effect/sql-pg",
      "services/src/a/a.ts:2 packages/services must not import node:fs",
      "services/src/a/b.ts:1 imports an app: @merkato/app-shop/main",
      "other/src/a.ts:1 packages/other has no rule for its imports",
      "apps/shop/src/main.ts:1 reaches into apps/gateway by a relative path: ../../gateway/src/main.ts",
      "apps/shop/src/main.ts:2 imports an app: @merkato/app-gateway/main"
    ])
    const good = [
      inFile("packages/domain/src/a.ts", 'import "effect"', 'import "effect/Schema"', 'import "@merkato/domain/b"'),
      inFile("packages/rpc/src/a.ts", 'import "effect/rpc"', 'import "@merkato/domain/b"', 'import "./b.ts"'),
      inFile("packages/infra/src/a.ts", 'import "mqtt"', 'import "node:fs"', 'import "@merkato/domain/b"'),
      inFile("packages/services/src/a/a.ts", 'import type { PgClient } from "@effect/sql-pg"'),
      inFile("packages/services/src/a/b.ts", 'import "@merkato/rpc/x"', 'import "@merkato/infra/y"'),
      inFile("apps/shop/src/main.ts", 'import "@merkato/services/contexts"', 'import "node:fs"')
    ]
    expect(found(importsPointOneWay, ...good)).toEqual([])
  })

  test("a cycle between packages is found, whatever is allowed", () => {
    const domain = inFile("packages/domain/src/a.ts", 'import "@merkato/rpc/a"')
    const rpc = inFile("packages/rpc/src/a.ts", 'import "@merkato/infra/a"')
    const infra = inFile("packages/infra/src/a.ts", "", 'import "@merkato/domain/a"')
    expect(found(noCycles, domain, rpc, infra)).toEqual([
      "infra/src/a.ts:2 closes the cycle packages/domain → packages/rpc → packages/infra → packages/domain"
    ])
    expect(found(noCycles, domain, rpc)).toEqual([])
  })

  test("a context that knows another is found", () => {
    const bad = [
      inFile("packages/services/src/orders/a.ts", 'import "../payments/b.ts"', 'import "@merkato/services/cart/c"'),
      inFile("packages/services/src/orders/b.ts", 'import "../contexts.ts"', 'import "@merkato/services/contexts"'),
      inFile("packages/services/src/_shared/a.ts", 'import "../orders/a.ts"'),
      inFile("packages/services/src/all.ts", 'import "./orders/index.ts"')
    ]
    expect(found(contextsMeetThroughContracts, ...bad)).toEqual([
      "services/src/orders/a.ts:1 orders must not import ../payments/b.ts",
      "services/src/orders/a.ts:2 orders must not import @merkato/services/cart/c",
      "services/src/orders/b.ts:1 orders must not import ../contexts.ts",
      "services/src/orders/b.ts:2 orders must not import @merkato/services/contexts",
      "services/src/_shared/a.ts:1 shared code must not import ../orders/a.ts",
      "services/src/all.ts:1 shared code must not import ./orders/index.ts"
    ])
    const good = [
      inFile("packages/services/src/orders/a.ts", 'import "./b.ts"', 'import "../_shared/a.ts"', 'import "../Base.ts"'),
      inFile("packages/services/src/contexts.ts", 'import "./orders/index.ts"', 'import "./cart/index.ts"')
    ]
    expect(found(contextsMeetThroughContracts, ...good)).toEqual([])
  })

  test("time, randomness and environment past Effect are found", () => {
    const bad = [
      "Date.now()",
      "new Date()",
      "new Date",
      "Date()",
      "Math.random()",
      "performance.now()",
      'process.env["X"]',
      "Bun.env.X",
      "import.meta.env",
      "crypto.randomUUID()",
      "globalThis.crypto.getRandomValues(a)",
      "setTimeout(f, 1)",
      "globalThis.setInterval(f, 1)",
      "array.map(Date.now)",
      "const text = `${Date.now()}`",
      'import { randomBytes, createHash } from "node:crypto"',
      'import { randomUUID } from "crypto"',
      'import * as crypto from "node:crypto"'
    ]
    for (const line of bad) {
      expect([line, found(clocksAndDiceComeFromEffect, inFile("packages/services/src/a/a.ts", line)).length]).toEqual([
        line,
        1
      ])
      expect(found(clocksAndDiceComeFromEffect, inFile("packages/domain/src/a.ts", line)).length).toBe(1)
      expect(found(clocksAndDiceComeFromEffect, inFile("packages/infra/src/a.ts", line))).toEqual([])
    }
    const good = [
      "// not Date.now()",
      'const why = "never Math.random()"',
      "new Date(0)",
      'new Date("2015-10-01")',
      "Schema.Date()",
      "socket.setTimeout(1)",
      "resetTimeout(1)",
      'import { createHash } from "node:crypto"'
    ]
    expect(found(clocksAndDiceComeFromEffect, inFile("packages/services/src/a/a.ts", ...good))).toEqual([])
  })

  test("the server's clock and dice in SQL are found", () => {
    const bad = [
      "sql`now()`",
      "sql<{ readonly at: Date }>`select ${at}, NOW ()`",
      'sql.unsafe("gen_random_uuid()")',
      "sql.literal(`random()`)",
      'const ddl = "create table a (at timestamptz default current_timestamp)"',
      "const query = `\n  select *\n  from a\n  where at < clock_timestamp()`",
      "sql`insert into a values (${sql`uuidv7()`})`",
      "sql`select 'now'::timestamptz`",
      "sql`select * from a where day = current_date`"
    ]
    for (const line of bad) {
      expect([
        line,
        found(sqlTakesTimeAndIdsAsParameters, inFile("packages/services/src/a/a.ts", line)).length
      ]).toEqual([line, 1])
      expect(found(sqlTakesTimeAndIdsAsParameters, inFile("packages/infra/src/a.ts", line)).length).toBe(1)
    }
    expect(
      found(
        sqlTakesTimeAndIdsAsParameters,
        inFile(
          "packages/infra/src/log/migrations/0001_log.sql",
          "-- not now()",
          "create table a (",
          "  at date default Now()",
          ");"
        ),
        inFile("packages/infra/src/log/a.ts", "// a line above", "const a = sql`", "  select", "  localtimestamp`")
      )
    ).toEqual([
      "infra/src/log/migrations/0001_log.sql:3 the server's clock or dice in SQL: Now(",
      "infra/src/log/a.ts:4 the server's clock or dice in SQL: localtimestamp"
    ])
    const good = [
      "const now = clock.now(); const r = random()",
      "sql`select * from a where at < ${now()} -- not now()`",
      "sql`select known(), randomly from a where name = 'now()'`",
      'const why = "call now() later"',
      "const current_date = 1"
    ]
    expect(found(sqlTakesTimeAndIdsAsParameters, inFile("packages/services/src/a/a.ts", ...good))).toEqual([])
  })

  test("silenced types are found", () => {
    const bad = [
      "x as any",
      "const x: any = 1",
      "<any>x",
      "Effect<A, any>",
      "Map<any, B>",
      "A | any>",
      "any[]",
      "// @ts-ignore",
      "/* @ts-expect-error */",
      "// @ts-nocheck"
    ]
    for (const line of bad)
      expect([line, found(typesAreNotSilenced, inFile("apps/shop/src/a.ts", line)).length]).toEqual([line, 1])
    const good = ["// as any other: any", 'const a = "x as any"', "anyOf(a, anything)", "Schema.Any"]
    expect(found(typesAreNotSilenced, inFile("apps/shop/src/a.ts", ...good))).toEqual([])
  })

  test("what is left open is found", () => {
    for (const word of ["TODO", "FIXME", "XXX", "HACK"]) {
      expect(found(nothingIsLeftOpen, inFile("apps/shop/src/a.ts", "", `// ${word}: later`))).toEqual([
        `apps/shop/src/a.ts:2 left open: ${word}`
      ])
      expect(found(nothingIsLeftOpen, inFile("packages/infra/src/a.sql", `-- ${word}`)).length).toBe(1)
    }
    expect(found(nothingIsLeftOpen, inFile("packages/domain/src/a.ts", 'const none = "XXX"'))).toEqual([])
  })

  test("a context without an entrance is found", () => {
    const bad = [inFile("packages/services/src/orders/Orders.ts"), inFile("packages/services/src/cart/index.ts")]
    expect(found(contextsHaveOneEntrance, ...bad)).toEqual(["services/src/orders/index.ts:1 is missing"])
    const good = [inFile("packages/services/src/_shared/a.ts"), inFile("packages/services/src/contexts.ts")]
    expect(found(contextsHaveOneEntrance, ...good)).toEqual([])
  })

  test("migrations with a gap, a double number or a wrong name are found", () => {
    const folder = (context: string, ...names: ReadonlyArray<string>) =>
      names.map((name) => inFile(`packages/services/src/${context}/migrations/${name}`))
    const bad = [
      ...folder("a", "0001_a.sql", "0003_c.sql"),
      ...folder("b", "0001_a.sql", "0001_b.sql"),
      ...folder("c", "0001_a.sql", "2_b.sql"),
      ...folder("d", "0001_a.sql", "notes.md"),
      ...folder("e", "0000_a.sql")
    ]
    expect(found(migrationsAreNumbered, ...bad)).toEqual([
      "services/src/a/migrations:1 0003 stands where 0002 should",
      "services/src/b/migrations:1 0001 stands where 0002 should",
      "services/src/c/migrations:1 2_b.sql is not NNNN_name.sql",
      "services/src/c/migrations:1 2_b. stands where 0002 should",
      "services/src/d/migrations:1 notes.md is not NNNN_name.sql",
      "services/src/e/migrations:1 0000 stands where 0001 should"
    ])
    expect(found(migrationsAreNumbered, ...folder("a", "0002_b.sql", "0001_a.sql", "index.ts"))).toEqual([])
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// The rules on the repository

const root = join(import.meta.dir, "..")

const repository: ReadonlyArray<Source> = await (async () => {
  const listed = Bun.spawnSync(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "packages", "apps"],
    {
      cwd: root,
      stderr: "ignore"
    }
  )
  const paths = listed.success
    ? listed.stdout.toString().split("\0")
    : [...new Bun.Glob("{packages,apps}/*/src/**/*").scanSync(root)]
  const sources = paths.filter(
    (path) =>
      /^(?:packages|apps)\/[^/]+\/src\//.test(path) &&
      /\.(?:[cm]?[jt]sx?|sql|proto|graphql|html|css)$/.test(path) &&
      existsSync(join(root, path))
  )
  return Promise.all(sources.map(async (path) => ({ path, text: await Bun.file(join(root, path)).text() })))
})()

const rules: Readonly<Record<string, Rule>> = {
  "imports point one way": importsPointOneWay,
  "what is big is loaded where it is wanted": barrelsAreNotLoaded,
  "packages have no cycles": noCycles,
  "contexts meet only through contracts": contextsMeetThroughContracts,
  "time, randomness and environment come from Effect": clocksAndDiceComeFromEffect,
  "SQL takes time and ids as parameters": sqlTakesTimeAndIdsAsParameters,
  "no type is silenced": typesAreNotSilenced,
  "nothing is left open": nothingIsLeftOpen,
  "every context has an index.ts": contextsHaveOneEntrance,
  "migrations are numbered without gaps": migrationsAreNumbered
}

describe("the repository", () => {
  const isAllowed = (rule: string, finding: Finding) =>
    allowed.some(
      (entry) => entry.rule === rule && entry.path === finding.path && finding.message.includes(entry.message)
    )

  test("has sources to check", () => {
    expect(repository.length).toBeGreaterThan(0)
  })

  for (const [name, rule] of Object.entries(rules))
    test(name, () => {
      const findings = rule(repository).filter((finding) => !isAllowed(name, finding))
      expect(findings.map(({ line, message, path }) => `${path}:${line} ${message}`)).toEqual([])
    })

  test("every exception is still needed", () => {
    const unneeded = allowed.filter(
      ({ rule, path, message }) =>
        !(rules[rule]?.(repository) ?? []).some((finding) => finding.path === path && finding.message.includes(message))
    )
    expect(unneeded).toEqual([])
  })
})
