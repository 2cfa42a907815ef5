import {
  type DocumentNode,
  GraphQLError,
  type GraphQLSchema,
  NoSchemaIntrospectionCustomRule,
  parse,
  specifiedRules,
  validate
} from "graphql"
import { sha256 } from "../idempotency/Digest.ts"
import { limits } from "./Limits.ts"

/** Characters of all queries that are remembered: a few thousand of the usual length. What they are parsed to takes about thirty times as much. */
const rememberedCharacters = 500_000

/** A query that fits the schema, or what is wrong with it. */
export type Read =
  | { readonly _tag: "Document"; readonly document: DocumentNode }
  | { readonly _tag: "Refused"; readonly errors: ReadonlyArray<GraphQLError> }

/** Tells nobody the names that the schema has instead, where they may not ask for them. */
const withoutSuggestions = (error: GraphQLError) =>
  new GraphQLError(error.message.replace(/ Did you mean .*$/s, ""), { nodes: error.nodes ?? null })

/**
 * Queries, read and checked once and known by the SHA-256 of their text from then on: to who sends it instead of the text,
 * too (automatic persisted queries). Bounded: the one that was not asked for longest goes first.
 */
export const make = (schema: GraphQLSchema, { introspection }: { readonly introspection: boolean }) => {
  const remembered = new Map<string, { readonly document: DocumentNode; readonly characters: number }>()
  const rules = introspection ? specifiedRules : [...specifiedRules, NoSchemaIntrospectionCustomRule]
  let characters = 0

  const find = (hash: string): DocumentNode | undefined => {
    const known = remembered.get(hash)
    if (known === undefined) return undefined
    remembered.delete(hash)
    remembered.set(hash, known)
    return known.document
  }

  const remember = (hash: string, document: DocumentNode, length: number) => {
    remembered.set(hash, { document, characters: length })
    characters += length
    for (const [oldest, { characters: freed }] of remembered) {
      if (characters <= rememberedCharacters) break
      remembered.delete(oldest)
      characters -= freed
    }
  }

  const parsed = (text: string): DocumentNode | GraphQLError => {
    try {
      return parse(text, { maxTokens: limits.tokens })
    } catch (error) {
      if (error instanceof GraphQLError) return error
      throw error
    }
  }

  const read = (text: string, hash: string): Read => {
    const known = find(hash)
    if (known !== undefined) return { _tag: "Document", document: known }
    const document = parsed(text)
    if (document instanceof GraphQLError) return { _tag: "Refused", errors: [document] }
    const errors = validate(schema, document, rules)
    if (errors.length > 0) {
      return { _tag: "Refused", errors: introspection ? errors : errors.map(withoutSuggestions) }
    }
    remember(hash, document, text.length)
    return { _tag: "Document", document }
  }

  return { find, read: (text: string) => read(text, sha256(text)), hashOf: sha256 }
}
