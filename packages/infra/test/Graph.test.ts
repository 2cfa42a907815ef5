// A composed graph of two small subgraphs: who is asked for what, what of it together, and what is too much.
import { describe, expect, test } from "bun:test"
import { Cause, Effect, Logger } from "effect"
import { buildSchema, getOperationAST, parse } from "graphql"
import { together } from "../src/graphql/Asking.ts"
import * as Documents from "../src/graphql/Documents.ts"
import * as Graph from "../src/graphql/Graph.ts"
import { excess, limits, measure } from "../src/graphql/Limits.ts"
import { fieldsOf } from "../src/graphql/Supergraph.ts"

/** As a composer writes it, less what is not read. */
const supergraph = `
  schema @link(url: "https://specs.apollo.dev/join/v0.3", for: EXECUTION) { query: Query }
  directive @join__type(graph: join__Graph!, key: join__FieldSet, resolvable: Boolean = true) repeatable on OBJECT
  directive @join__field(graph: join__Graph) repeatable on FIELD_DEFINITION
  directive @link(url: String, for: link__Purpose) repeatable on SCHEMA
  scalar join__FieldSet
  enum link__Purpose { EXECUTION }
  enum join__Graph { BOOKS PEOPLE }
  type Query @join__type(graph: BOOKS) @join__type(graph: PEOPLE) {
    books: [Book!] @join__field(graph: BOOKS)
    person(id: ID!): Person @join__field(graph: PEOPLE)
  }
  type Book @join__type(graph: BOOKS) { title: String! author: Person }
  type Person @join__type(graph: BOOKS, key: "id", resolvable: false) @join__type(graph: PEOPLE, key: "id") {
    id: ID!
    name: String! @join__field(graph: PEOPLE)
    broken: String @join__field(graph: PEOPLE)
    friend: Person @join__field(graph: PEOPLE)
  }
`

/** A graph, and which people were read together. */
const library = ({ introspection }: { readonly introspection: boolean }) => {
  const reads: Array<ReadonlyArray<string>> = []
  const personOf = together((ids) =>
    Effect.sync(() => {
      reads.push(ids)
      return (id: string) => ({ id, name: `Name of ${id}` })
    })
  )
  const person = (id: string, asking: Parameters<typeof personOf>[1]) =>
    id === "nobody"
      ? asking.run(Effect.fail("nobody is here"))
      : id === "late"
        ? asking.run(Effect.delay(Effect.fail("too late"), "20 millis"))
        : personOf(id, asking)
  const graph = Graph.make({
    supergraph,
    introspection,
    refusalOf: (cause) => Effect.succeed({ code: "refused", detail: String(Cause.squash(cause)) }),
    extensionsOf: ({ code, extensions }) => Effect.succeed({ ...extensions, code }),
    subgraphs: {
      books: {
        types: {
          Query: fieldsOf<unknown>({
            books: () => ["ada", "bob", "ada", "nobody"].map((author) => ({ title: `By ${author}`, author }))
          }),
          Book: fieldsOf<{ readonly author: string }>({ author: ({ author }) => ({ id: author }) })
        }
      },
      people: {
        types: {
          Query: fieldsOf<unknown>({ person: (_, args, asking) => person(String(Object(args).id), asking) }),
          Person: fieldsOf<{ readonly id: string }>({
            friend: ({ id }, _, asking) => person(`friend-of-${id}`, asking),
            broken: () => {
              throw new Error("the innards")
            }
          })
        },
        entities: { Person: person }
      }
    }
  })
  const ask = (query: string, more: Partial<Graph.Asked> = {}) =>
    graph.answer({ query, operationName: undefined, variables: {}, persisted: undefined, ...more }).pipe(
      Effect.provide(Logger.layer([])),
      Effect.map((answer): unknown => JSON.parse(JSON.stringify(answer))),
      Effect.runPromise
    )
  return { ask, reads }
}

describe("a composed graph", () => {
  test("asks the subgraph that has a field, each entity once, and many together", async () => {
    const { ask, reads } = library({ introspection: true })
    expect(await ask(`{ books { author { id name } } person(id: "eve") { id name friend { name } } }`)).toEqual({
      data: {
        books: [
          { author: { id: "ada", name: "Name of ada" } },
          { author: { id: "bob", name: "Name of bob" } },
          { author: { id: "ada", name: "Name of ada" } },
          { author: null }
        ],
        person: { id: "eve", name: "Name of eve", friend: { name: "Name of friend-of-eve" } }
      },
      errors: [
        {
          message: "nobody is here",
          path: ["books", 3, "author", "name"],
          locations: [{ line: 1, column: 23 }],
          extensions: { code: "refused" }
        }
      ]
    })
    expect(reads.flat().toSorted()).toEqual(["ada", "bob", "eve", "friend-of-eve"])
    expect(reads.length).toBe(2)
  })

  test("asks nobody for the key that is there already", async () => {
    const { ask, reads } = library({ introspection: true })
    expect(await ask(`{ books { author { id } } }`)).toMatchObject({
      data: { books: [{}, {}, {}, { author: { id: "nobody" } }] }
    })
    expect(reads).toEqual([])
  })

  test("tells nothing of what broke inside", async () => {
    const { ask } = library({ introspection: true })
    const answer = await ask(`{ person(id: "eve") { name broken } }`)
    expect(answer).toMatchObject({
      data: { person: { name: "Name of eve", broken: null } },
      errors: [
        { message: "Something went wrong on our side", path: ["person", "broken"], extensions: { code: "internal" } }
      ]
    })
    expect(JSON.stringify(answer)).not.toContain("innards")
  })

  test("tells failures in the order of the query, whichever came first", async () => {
    const { ask } = library({ introspection: true })
    expect(await ask(`{ late: person(id: "late") { id } gone: person(id: "nobody") { id } }`)).toMatchObject({
      errors: [{ path: ["late"] }, { path: ["gone"] }]
    })
  })

  test("says nothing of composition, and nothing at all where it may not be asked for", async () => {
    const query = "{ __schema { types { name } directives { name } } }"
    const shown = JSON.stringify(await library({ introspection: true }).ask(query))
    expect(shown).toContain("Person")
    expect(shown).not.toMatch(/join__|link/)
    const hidden = library({ introspection: false })
    expect(await hidden.ask(query)).not.toHaveProperty("data")
    expect(await hidden.ask("{ __typename }")).toEqual({ data: { __typename: "Query" } })
    expect(JSON.stringify(await hidden.ask("{ bokos { title } }"))).not.toContain("books")
    expect(JSON.stringify(await library({ introspection: true }).ask("{ bokos { title } }"))).toContain("books")
  })

  test("is not asked deeper than it is answered", async () => {
    const { ask, reads } = library({ introspection: true })
    const deep = (levels: number) =>
      `{ person(id: "eve") { ${"friend { ".repeat(levels - 2)}id${" }".repeat(levels - 2)} } }`
    expect(await ask(deep(limits.depth))).toHaveProperty("data")
    const before = reads.length
    expect(await ask(deep(limits.depth + 1))).toMatchObject({
      errors: [{ extensions: { code: "query_too_deep", asked: limits.depth + 1, most: limits.depth } }]
    })
    expect(reads.length).toBe(before)
  })
})

describe("the measure of a query", () => {
  const schema = buildSchema(`
    type Query { page(limit: Int = 20): Page list(filter: Filter): [Thing] thing: Thing }
    input Filter { limit: Int }
    type Page { items: [Thing!]! }
    type Thing { a: Int b: Int thing: Thing }
  `)
  const of = (query: string, variables: Readonly<Record<string, unknown>> = {}) => {
    const document = parse(query)
    const operation = getOperationAST(document)
    if (operation === null || operation === undefined) throw new Error("no operation")
    return measure(schema, document, operation, variables)
  }

  test("counts fields, those of a list as often as it may be long", () => {
    expect(of("{ thing { a b } }")).toEqual({ depth: 2, aliases: 0, cost: 3 })
    expect(of("{ list { a b } }").cost).toBe(1 + 20 * 2)
    expect(of("{ list(filter: { limit: 5 }) { a x: b } }")).toEqual({ depth: 2, aliases: 1, cost: 1 + 5 * 2 })
    expect(of("{ page { items { a } } }").cost).toBe(1 + 1 + 20)
    expect(of("{ page(limit: 3) { items { a thing { b } } } }")).toEqual({ depth: 4, aliases: 0, cost: 1 + 1 + 3 * 3 })
  })

  test("takes limits out of variables, their defaults, and filters that are one", () => {
    const query = "query ($n: Int = 7, $f: Filter) { page(limit: $n) { items { a } } list(filter: $f) { a } }"
    expect(of(query).cost).toBe(2 + 7 + 1 + 20)
    expect(of(query, { n: 100, f: { limit: 50 } }).cost).toBe(2 + 100 + 1 + 50)
  })

  test("follows fragments, each once, however often they use each other", () => {
    const levels = Array.from({ length: 60 }, (_, nth) => `fragment F${nth} on Thing { ...F${nth + 1} ...F${nth + 1} }`)
    const query = `{ thing { ...F0 ... on Thing { b } } } ${levels.join(" ")} fragment F60 on Thing { x: a }`
    expect(of(query)).toEqual({ depth: 2, aliases: 2 ** 60, cost: 2 ** 60 + 2 })
    expect(excess(of(query))?.code).toBe("too_many_aliases")
    expect(excess(of("{ thing { a } }"))).toBeUndefined()
  })
})

test("queries are remembered within a bound, the one that was asked for last the longest", () => {
  const documents = Documents.make(buildSchema("type Query { a: Int }"), { introspection: true })
  const query = (nth: number) => `query Q${nth} { a } #${"x".repeat(9_980)}`
  documents.read(query(0))
  documents.read(query(1))
  for (let nth = 2; nth < 60; nth++) {
    documents.read(query(nth))
    documents.find(documents.hashOf(query(0)))
  }
  const known = (nth: number) => documents.find(documents.hashOf(query(nth))) !== undefined
  expect([known(0), known(1), known(59)]).toEqual([true, false, true])
  expect(documents.read("{ b }")._tag).toBe("Refused")
  expect(documents.find(documents.hashOf("{ b }"))).toBeUndefined()
})
