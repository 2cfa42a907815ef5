import {
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  getNamedType,
  getNullableType,
  type GraphQLField,
  type GraphQLNamedType,
  type GraphQLSchema,
  isListType,
  isObjectType,
  Kind,
  type OperationDefinitionNode,
  type SelectionSetNode,
  type ValueNode
} from "graphql"

/** What a query may take at most; `characters` and `tokens` are looked at before it is read. */
export const limits = {
  characters: 16_384,
  tokens: 2_000,
  /** Fields within each other. */
  depth: 12,
  /** Fields that are given another name: each is answered apart. */
  aliases: 30,
  /** Fields, those of a list as often as it is asked to be long (20 unless told). */
  cost: 10_000
} as const

const assumedLength = 20

export interface Measured {
  readonly depth: number
  readonly aliases: number
  readonly cost: number
}

const nothing: Measured = { depth: 0, aliases: 0, cost: 0 }

const beside = (a: Measured, b: Measured): Measured => ({
  depth: Math.max(a.depth, b.depth),
  aliases: a.aliases + b.aliases,
  cost: a.cost + b.cost
})

type Variables = Readonly<Record<string, unknown>>

/** How much an operation asks for. The document is valid: its fragments do not lead back to themselves. */
export const measure = (
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Variables
): Measured => {
  const fragments = new Map<string, FragmentDefinitionNode>(
    document.definitions.flatMap((each) =>
      each.kind === Kind.FRAGMENT_DEFINITION ? [[each.name.value, each] as const] : []
    )
  )
  /** Each fragment is measured once for each length that it may get from outside: used in itself again and again, it would take for ever. */
  const known = new Map<string, Measured>()
  const defaults = new Map(
    (operation.variableDefinitions ?? []).map(({ variable, defaultValue }) => [variable.name.value, defaultValue])
  )

  const valueOf = (node: ValueNode | undefined): unknown => {
    if (node?.kind === Kind.VARIABLE) {
      const name = node.name.value
      return Object.hasOwn(variables, name) ? variables[name] : valueOf(defaults.get(name))
    }
    if (node?.kind === Kind.INT) return Number(node.value)
    if (node?.kind !== Kind.OBJECT) return undefined
    return Object.fromEntries(node.fields.map((field) => [field.name.value, valueOf(field.value)]))
  }

  /** The `limit` that a field is asked with, by itself or in its filter. */
  const limitOf = (field: FieldNode): number | undefined => {
    const argument = (name: string) => valueOf(field.arguments?.find((each) => each.name.value === name)?.value)
    const filter = argument("filter")
    const limit = argument("limit") ?? (typeof filter === "object" && filter !== null && Reflect.get(filter, "limit"))
    return typeof limit === "number" && limit > 0 ? limit : undefined
  }

  const selections = (
    { selections: all }: SelectionSetNode,
    type: GraphQLNamedType | undefined,
    length: number | undefined
  ): Measured =>
    all.reduce((sum, each) => {
      switch (each.kind) {
        case Kind.FIELD:
          return beside(sum, field(each, isObjectType(type) ? type.getFields()[each.name.value] : undefined, length))
        case Kind.INLINE_FRAGMENT:
          return beside(sum, selections(each.selectionSet, type, length))
        case Kind.FRAGMENT_SPREAD:
          return beside(sum, fragment(each.name.value, length))
      }
    }, nothing)

  const fragment = (name: string, length: number | undefined): Measured => {
    const key = `${name} ${length}`
    const before = known.get(key)
    if (before !== undefined) return before
    const definition = fragments.get(name)
    const made =
      definition === undefined
        ? nothing
        : selections(definition.selectionSet, schema.getType(definition.typeCondition.name.value), length)
    known.set(key, made)
    return made
  }

  /** A page is as long as its field was asked to make it: `orders(limit: 5) { items {…} }`. */
  const field = (
    node: FieldNode,
    definition: GraphQLField<unknown, unknown> | undefined,
    inherited: number | undefined
  ): Measured => {
    const aliases = node.alias === undefined ? 0 : 1
    if (node.selectionSet === undefined) return { depth: 1, aliases, cost: 1 }
    const length = limitOf(node) ?? inherited
    const isList = definition !== undefined && isListType(getNullableType(definition.type))
    const within = selections(
      node.selectionSet,
      definition === undefined ? undefined : getNamedType(definition.type),
      isList ? undefined : length
    )
    return {
      // How deep the schema's own description may be asked for is a rule of validation.
      depth: node.name.value.startsWith("__") ? 1 : within.depth + 1,
      aliases: aliases + within.aliases,
      cost: 1 + within.cost * (isList ? (length ?? assumedLength) : 1)
    }
  }

  return selections(operation.selectionSet, schema.getQueryType() ?? undefined, undefined)
}

const refusals = {
  depth: { code: "query_too_deep", what: "levels deep" },
  aliases: { code: "too_many_aliases", what: "aliases" },
  cost: { code: "query_too_costly", what: "fields, lists counted in full length" }
} as const

/** What is too much of an operation, and by how much. */
export const excess = (measured: Measured) => {
  for (const what of ["depth", "aliases", "cost"] as const) {
    const [asked, most] = [measured[what], limits[what]]
    if (asked <= most) continue
    return {
      code: refusals[what].code,
      detail: `The query asks for ${asked} ${refusals[what].what}; at most ${most} are answered`,
      extensions: { asked, most }
    }
  }
  return undefined
}
