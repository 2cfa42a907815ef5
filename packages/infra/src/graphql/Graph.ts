import { type Cause, Effect, FiberSet, type Scope } from "effect"
import { execute, type ExecutionResult, getOperationAST, GraphQLError, OperationTypeNode } from "graphql"
import * as Tracing from "../telemetry/Tracing.ts"
import type { Asking } from "./Asking.ts"
import * as Documents from "./Documents.ts"
import { excess, limits, measure } from "./Limits.ts"
import * as Supergraph from "./Supergraph.ts"

/** What is asked of a graph, however it came. */
export interface Asked {
  readonly query: string | undefined
  readonly operationName: string | undefined
  readonly variables: Readonly<Record<string, unknown>>
  /** SHA-256 of the query, in hex: automatic persisted queries. */
  readonly persisted: string | undefined
}

/** Why something is not answered. */
export interface Refusal {
  readonly code: string
  readonly detail: string
  readonly extensions?: Readonly<Record<string, unknown>>
}

/** As the query has them, and within a list as the list has them: which of two fields fails first is a matter of time. */
const inOrder = (one: GraphQLError, other: GraphQLError): number => {
  for (const [index, step] of (one.path ?? []).entries()) {
    const others = other.path?.[index]
    if (step === others) continue
    if (typeof step === "number" && typeof others === "number") return step - others
    break
  }
  return (one.positions?.[0] ?? 0) - (other.positions?.[0] ?? 0)
}

/** What a request is answered with: errors without `data` when nothing of it was begun. */
export type Answer = Pick<ExecutionResult, "data" | "errors">

interface Options {
  /** The composed graph (join v0.3). */
  readonly supergraph: string
  readonly subgraphs: Readonly<Record<string, Supergraph.Subgraph>>
  /** Whether clients may ask for the schema, and are told names that they may have meant. */
  readonly introspection: boolean
  /** What clients are told of a failure. */
  readonly refusalOf: (cause: Cause.Cause<unknown>) => Effect.Effect<Refusal>
  /** What clients read of a refusal in `extensions`. */
  readonly extensionsOf: (refusal: Refusal) => Effect.Effect<Readonly<Record<string, unknown>>>
}

const internal: Refusal = { code: "internal", detail: "Something went wrong on our side" }

/** Answers queries to a graph, within its limits. */
export const make = ({ supergraph, subgraphs, introspection, refusalOf, extensionsOf }: Options) => {
  const schema = Supergraph.make(supergraph, subgraphs)
  const documents = Documents.make(schema, { introspection })

  const errorOf = (refusal: Refusal) =>
    Effect.map(extensionsOf(refusal), (extensions) => new GraphQLError(refusal.detail, { extensions }))
  const refuse = (refusal: Refusal) => Effect.map(errorOf(refusal), (error): Answer => ({ errors: [error] }))

  /** What graphql-js found by itself: a query or variables that do not fit the schema, or a mistake of ours. */
  const toldOf = Effect.fnUntraced(function* (error: GraphQLError) {
    if (error.extensions["code"] !== undefined) return error
    const isOurs = error.path !== undefined
    if (isOurs) yield* Effect.logError("A field of the graph failed in a way that nobody foresaw", error)
    const refusal = isOurs ? internal : { code: "validation_failed", detail: error.message }
    return new GraphQLError(refusal.detail, {
      nodes: error.nodes ?? null,
      source: error.source ?? null,
      positions: error.positions ?? null,
      path: error.path ?? null,
      extensions: yield* extensionsOf(refusal)
    })
  })
  const toldOfAll = (errors: ReadonlyArray<GraphQLError>) => Effect.forEach(errors.toSorted(inOrder), toldOf)

  /** The query, by its text or by the hash under which it was read before. */
  const documentOf = Effect.fnUntraced(function* ({ query, persisted }: Asked) {
    if (query === undefined) {
      const known = persisted === undefined ? undefined : documents.find(persisted)
      // The message that clients of automatic persisted queries look for.
      return known ?? (yield* refuse({ code: "persisted_query_not_found", detail: "PersistedQueryNotFound" }))
    }
    if (query.length > limits.characters) {
      const detail = `The query has ${query.length} characters; at most ${limits.characters} are read`
      return yield* refuse({ code: "query_too_long", detail })
    }
    if (persisted !== undefined && persisted !== documents.hashOf(query)) {
      const detail = "The query's SHA-256 is not the one that came with it"
      return yield* refuse({ code: "persisted_query_mismatch", detail })
    }
    const read = documents.read(query)
    return read._tag === "Document" ? read.document : { errors: yield* toldOfAll(read.errors) }
  })

  /** Runs the effects of a request, and ends them with it. */
  const asking = Effect.map(
    FiberSet.makeRuntimePromise<never, unknown, never>(),
    (run): Asking => ({
      run: async <A>(effect: Effect.Effect<A, unknown>): Promise<A> => {
        let answer: { readonly value: A } | undefined
        const failure = await run(
          Effect.matchCauseEffect(effect, {
            onSuccess: (value) => Effect.sync(() => void (answer = { value })),
            onFailure: (cause) => Effect.flatMap(refusalOf(cause), errorOf)
          })
        )
        if (answer === undefined) throw failure
        return answer.value
      }
    })
  )

  const answer = Effect.fnUntraced(function* (asked: Asked): Effect.fn.Return<Answer, never, Scope.Scope> {
    const document = yield* documentOf(asked)
    if (!("kind" in document)) return document
    const operation = getOperationAST(document, asked.operationName)
    if (operation === null || operation === undefined) {
      return yield* refuse({ code: "validation_failed", detail: "Name the operation of the query that is meant" })
    }
    if (operation.operation !== OperationTypeNode.QUERY) {
      return yield* refuse({ code: "operation_not_supported", detail: "Only queries are answered here" })
    }
    const tooMuch = excess(measure(schema, document, operation, asked.variables))
    if (tooMuch !== undefined) return yield* refuse(tooMuch)

    if (operation.name !== undefined) {
      yield* Effect.annotateCurrentSpan("graphql.operation.name", operation.name.value)
    }
    const contextValue = yield* asking
    const result = yield* Effect.promise(async () =>
      execute({
        schema,
        document,
        operationName: asked.operationName,
        variableValues: asked.variables,
        contextValue
      })
    )
    return result.errors === undefined ? result : { ...result, errors: yield* toldOfAll(result.errors) }
  }, Effect.scoped)

  return { answer: (asked: Asked) => answer(asked).pipe(Tracing.withSpan("GraphQL.query")) }
}
