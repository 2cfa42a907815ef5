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
