import {
  type ASTNode,
  buildASTSchema,
  type ConstDirectiveNode,
  getNamedType,
  type GraphQLField,
  type GraphQLSchema,
  isObjectType,
  Kind,
  type ObjectTypeDefinitionNode,
  parse,
  visit
} from "graphql"
import type { Asking } from "./Asking.ts"

type Field = (parent: unknown, args: unknown, asking: Asking) => unknown
type Fields = Readonly<Record<string, Field>>

/** A subgraph's part of the graph that answers in this process. */
export interface Subgraph {
  /** The fields that are not simply a member of their parent, by type. */
  readonly types: Readonly<Record<string, Fields>>
  /** The entities that other subgraphs lead to: by name, each by its key. */
  readonly entities?: Readonly<Record<string, (key: string, asking: Asking) => Promise<unknown>>>
}

/** The fields of a type whose parents are of this form: such values its subgraph has given, and no others get here. */
export const fieldsOf = <Parent>(
  fields: Readonly<Record<string, (parent: Parent, args: unknown, asking: Asking) => unknown>>
): Fields => fields as Fields

/** An entity, as a subgraph has given it. */
class Entity {
  constructor(
    readonly graph: string,
    readonly value: unknown
  ) {}
}

/** Which subgraphs have each field, out of the `join` directives of a supergraph (join v0.3), and what is an entity. */
const routesOf = (types: ReadonlyArray<ObjectTypeDefinitionNode>) => {
  const argument = ({ arguments: given }: ConstDirectiveNode, name: string) => {
    const value = given?.find((each) => each.name.value === name)?.value
    return value !== undefined && "value" in value ? value.value : undefined
  }
  const graphsOf = (directives: ReadonlyArray<ConstDirectiveNode> | undefined, name: string) =>
    (directives ?? [])
      .filter((each) => each.name.value === name)
      .flatMap((each) => {
        const graph = argument(each, "graph")
        return typeof graph === "string" ? [graph] : []
      })
  const fields = new Map<string, ReadonlyArray<string>>()
  const entities = new Set<string>()
  for (const type of types) {
    const joined = (type.directives ?? []).filter(({ name }) => name.value === "join__type")
    if (joined.some((each) => argument(each, "key") !== undefined)) entities.add(type.name.value)
    for (const field of type.fields ?? []) {
      const own = graphsOf(field.directives, "join__field")
      fields.set(`${type.name.value}.${field.name.value}`, own.length > 0 ? own : graphsOf(joined, "join__type"))
    }
  }
  return { entities, graphsOf: (type: string, field: string) => fields.get(`${type}.${field}`) ?? [] }
}

const isComposition = (name: string) => /^(?:join__|link(?:__|$))/.test(name)

/** The graph as clients see it: without what only composition is about. */
const publicSchema = (supergraph: ReturnType<typeof parse>): GraphQLSchema =>
  buildASTSchema(
    visit(supergraph, {
      enter: (node: ASTNode) =>
        node.kind === Kind.SCHEMA_DEFINITION ||
        ("name" in node && node.name !== undefined && isComposition(node.name.value))
          ? null
          : undefined
    })
  )

const then = <A, B>(value: A | Promise<A>, next: (value: A) => B) =>
  value instanceof Promise ? value.then(next) : next(value)

/** A member of what a subgraph gave. */
const memberOf = (parent: unknown, name: string): unknown =>
  typeof parent === "object" && parent !== null ? Reflect.get(parent, name) : undefined

/**
 * Makes a composed graph answer from the subgraphs of this process, by what its `join` directives say about whose is what.
 * A field of an entity that the subgraph which gave it does not have is asked of one that does, by the entity's key: what
 * a gateway does by `_entities`, without printing, sending and parsing queries in between.
 */
export const make = (supergraphSdl: string, subgraphs: Readonly<Record<string, Subgraph>>): GraphQLSchema => {
  const supergraph = parse(supergraphSdl)
  const routes = routesOf(supergraph.definitions.filter((each) => each.kind === Kind.OBJECT_TYPE_DEFINITION))
  const schema = publicSchema(supergraph)
  const subgraph = (graph: string) => subgraphs[graph.toLowerCase()]

  const resolverOf = (type: string, field: GraphQLField<unknown, Asking>) => {
    const graphs = routes.graphsOf(type, field.name)
    const givesEntities = routes.entities.has(getNamedType(field.type).name)
    /** Answers from a subgraph that has the field. */
    const answer = (graph: string, parent: unknown, args: unknown, asking: Asking): unknown => {
      const given = subgraph(graph)?.types[type]?.[field.name]
      const value = given === undefined ? memberOf(parent, field.name) : given(parent, args, asking)
      return givesEntities ? then(value, (entities) => asEntities(graph, entities)) : value
    }
    const [first = ""] = graphs
    if (!routes.entities.has(type)) {
      return (parent: unknown, args: unknown, asking: Asking) => answer(first, parent, args, asking)
    }
    return (parent: unknown, args: unknown, asking: Asking): unknown => {
      if (!(parent instanceof Entity)) throw new Error(`${type} is an entity, and came without its subgraph`)
      const { graph, value } = parent
      if (graphs.includes(graph)) return answer(graph, value, args, asking)
      const key = keyOf(type, parent, asking)
      const found = subgraph(first)?.entities?.[type]?.(key, asking)
      return then(found, (entity) => answer(first, entity, args, asking))
    }
  }

  /** The key of an entity: every entity here has `id`. */
  const keyOf = (type: string, { graph, value }: Entity, asking: Asking): string => {
    const id = subgraph(graph)?.types[type]?.["id"]
    return String(id === undefined ? memberOf(value, "id") : id(value, {}, asking))
  }

  for (const type of Object.values(schema.getTypeMap())) {
    if (!isObjectType(type) || type.name.startsWith("__")) continue
    for (const field of Object.values(type.getFields())) field.resolve = resolverOf(type.name, field)
  }
  return schema
}

const asEntities = (graph: string, value: unknown): unknown => {
  if (value === null || value === undefined) return value
  return Array.isArray(value) ? value.map((each) => asEntities(graph, each)) : new Entity(graph, value)
}
