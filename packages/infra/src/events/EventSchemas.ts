import { Context, Exit, Schema } from "effect"
import { allEvents } from "@merkato/domain/events"

interface Definition {
  readonly type: string
  readonly payload: Schema.Codec<unknown, unknown>
}

/** What is wrong with an event, in a sentence; undefined when nothing is. */
export type Verdict = string | undefined

/** The schemas that events are judged by on their way: those that the registry has, as this code knows them (ADR 26). */
export interface EventSchemasShape {
  /** Of what the shop itself writes: every type has a schema, and every property is in it. */
  readonly wrongAsWritten: (eventType: string, payload: unknown) => Verdict
  /** Of what comes off a topic: newer versions of the shop may have written other types, and more properties. */
  readonly wrongAsRead: (eventType: string, payload: unknown) => Verdict
}

type Judge = (payload: unknown) => Verdict

const judge = ({ payload, type }: Definition, onExcessProperty: "error" | "ignore"): Judge => {
  const decode = Schema.decodeUnknownExit(payload, { onExcessProperty })
  return (value) => {
    const decoded = decode(value)
    if (Exit.isSuccess(decoded)) return undefined
    const [reason] = decoded.cause.reasons
    const why = reason?._tag === "Fail" ? reason.error.message : "it cannot be read"
    return `It breaks the schema of ${type}: ${why.replaceAll(/\s+/g, " ")}`
  }
}

export const of = (definitions: ReadonlyArray<Definition>): EventSchemasShape => {
  const judges = new Map(
    definitions.map((definition) => [
      definition.type,
      { written: judge(definition, "error"), read: judge(definition, "ignore") }
    ])
  )
  return {
    wrongAsWritten: (eventType, payload) => {
      const known = judges.get(eventType)
      return known === undefined ? `There is no schema of ${eventType}` : known.written(payload)
    },
    wrongAsRead: (eventType, payload) => judges.get(eventType)?.read(payload)
  }
}

export const EventSchemas = Context.Reference<EventSchemasShape>("merkato/infra/EventSchemas", {
  defaultValue: () => of(allEvents)
})
