import { expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"

const root = new URL("..", import.meta.url).pathname

test("the generated references are those of the code", () => {
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, join(root, "scripts/generate-docs.ts"), "--check"])
  expect(stderr.toString()).toBe("")
  expect(exitCode).toBe(0)
})

test("links between documents lead somewhere", () => {
  const documents = [
    "README.md",
    ...["docs", "docs/adr", "docs/runbooks", "docs/reference"].flatMap((folder) =>
      readdirSync(join(root, folder))
        .filter((name) => name.endsWith(".md"))
        .map((name) => join(folder, name))
    )
  ]
  const dead = documents.flatMap((document) =>
    [...readFileSync(join(root, document), "utf8").matchAll(/\]\((?!https?:|#)([^)#]+)/g)]
      .map(([, target]) => target ?? "")
      .filter((target) => !existsSync(join(root, dirname(document), target)))
      .map((target) => `${document}: ${target}`)
  )
  expect(dead).toEqual([])
})

test("every setting that the code reads is in the README or a runbook, and the README names no other", () => {
  const filesIn = (folder: string) =>
    [...new Bun.Glob("*/src/**/*.ts").scanSync(join(root, folder))].map((name) =>
      readFileSync(join(root, folder, name), "utf8")
    )
  const code = [...filesIn("packages"), ...filesIn("apps")].join("\n")
  const read = [...code.matchAll(/Config\.\w+\((?:\w+, |\[[^\]]*\], )?"([A-Z][A-Z0-9_]+)"|"(MERKATO_[A-Z_]+)"/g)]
    .map(([, setting, own]) => setting ?? own ?? "")
    .filter((name) => name !== "MERKATO_TEST_DATABASE_URL")
  expect(read.length).toBeGreaterThan(50)
  const readme = readFileSync(join(root, "README.md"), "utf8")
  const told = [
    readme,
    ...readdirSync(join(root, "docs/runbooks")).map((name) => readFileSync(join(root, "docs/runbooks", name), "utf8"))
  ].join("\n")
  expect([...new Set(read)].filter((name) => !told.includes(`\`${name}`))).toEqual([])
  // Those of a context are read by a name that is put together.
  const named = [...readme.matchAll(/`((?:MERKATO|OPA|S3|MQTT)_[A-Z_]+|[A-Z_]+_URL)`/g)].map(([, name]) => name ?? "")
  expect(named.length).toBeGreaterThan(30)
  expect(named.filter((name) => !code.includes(`"${name}"`) && name !== "MERKATO_ORDERS_DATABASE_URL")).toEqual([])
})
