// The graph: its subgraphs compose, what was promised in it stays, and nothing of what is behind it shows.
//
//   MERKATO_UPDATE_GOLDEN=1 bun test packages/rpc/test/Supergraph.test.ts
//
// writes src/graphql/supergraph.graphql, and test/golden/api.graphql unless somebody's query would break by it.
import { describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { composeServices } from "@theguild/federation-composition"
import { buildSchema, findBreakingChanges, isEnumType, parse, visit } from "graphql"
import { OrderStatus } from "@merkato/domain/orders/Order"
import { subgraphs } from "../src/graphql/Subgraphs.ts"

const composed = composeServices(
  Object.entries(subgraphs).map(([name, sdl]) => ({ name, typeDefs: parse(sdl), url: `http://${name}/graphql` }))
)
const files = {
  supergraph: join(import.meta.dir, "../src/graphql/supergraph.graphql"),
  api: join(import.meta.dir, "golden/api.graphql")
}
const golden = (file: keyof typeof files) => readFileSync(files[file], "utf8")
const inFile = (text = "") => `${text.trim()}\n`

const broken = (before: string, now: string) =>
  findBreakingChanges(buildSchema(before), buildSchema(now)).map(({ description }) => description)

if (process.env["MERKATO_UPDATE_GOLDEN"] === "1") {
  writeFileSync(files.supergraph, inFile(composed.supergraphSdl))
  if (broken(golden("api"), inFile(composed.publicSdl)).length === 0) {
    writeFileSync(files.api, inFile(composed.publicSdl))
  }
}

describe("the graph", () => {
  test("is what its subgraphs compose to", () => {
    expect(composed.errors ?? []).toEqual([])
    expect(golden("supergraph")).toBe(inFile(composed.supergraphSdl))
  })

  test("answers every query that it ever answered", () => {
    expect(broken(golden("api"), inFile(composed.publicSdl))).toEqual([])
    expect(golden("api")).toBe(inFile(composed.publicSdl))
  })

  test("would be found to break a query", () => {
    const less = inFile(composed.publicSdl).replace(/^ {2}sku: String!$/m, "")
    expect(broken(golden("api"), less)).toEqual(["Product.sku was removed."])
  })

  test("knows the statuses of an order that there are", () => {
    const status = buildSchema(inFile(composed.publicSdl)).getType("OrderStatus")
    const names = isEnumType(status) ? status.getValues().map(({ name }) => name) : []
    expect(names.toSorted()).toEqual([...OrderStatus.literals].toSorted())
  })

  test("has no names of tables or columns", () => {
    const services = join(import.meta.dir, "../../services/src")
    const migrations = readdirSync(services, { recursive: true, encoding: "utf8" }).filter((path) =>
      /migrations\/.*\.sql$/.test(path)
    )
    const tables = migrations.flatMap((path) =>
      [...readFileSync(join(services, path), "utf8").matchAll(/create table (?:if not exists )?(?:\w+\.)?(\w+)/gi)].map(
        ([, table]) => table ?? ""
      )
    )
    expect(tables).toContain("inventory_stock")

    const names = new Set<string>()
    visit(parse(inFile(composed.publicSdl)), {
      Name: ({ value }) => {
        names.add(value)
      }
    })
    expect([...names].filter((name) => name.includes("_"))).toEqual([])
    // These two are words of the shop before they are tables, and in the contract.
    expect([...names].filter((name) => tables.includes(name)).toSorted()).toEqual(["orders", "products"])
  })
})
