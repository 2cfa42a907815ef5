/** Whether a schema of an event may follow another one; registries ask the same. */
import type { JsonSchema } from "./EventSchema.ts"

/** Keywords that say nothing about what is valid. */
const silent = new Set(["$id", "$schema", "$defs", "title", "description"])
/** Keywords that are compared; a schema with any other, or with a `$ref` that leads nowhere, is not vouched for. */
const understood = new Set([
  "type",
  "enum",
  "properties",
  "required",
  "additionalProperties",
  "items",
  "anyOf",
  "allOf",
  "minimum",
  "maximum",
  "pattern"
])

/**
 * Why data of an older schema might not be read by a newer one (BACKWARD), or why a reader of the older one might miss what
 * it needs; a sentence each, with the place. Nothing: the change is safe. It may say too much, never too little.
 */
export const incompatibilities = (older: JsonSchema, newer: JsonSchema): ReadonlyArray<string> => {
  const resolve = (schema: JsonSchema, root: JsonSchema): JsonSchema => {
    const name = schema.$ref?.split("/").at(-1)
    const found = (name === undefined ? undefined : root.$defs?.[decodeURIComponent(name)]) ?? schema
    // One choice is none.
    const { anyOf, ...rest } = found
    const [only] = anyOf ?? []
    return only !== undefined && anyOf?.length === 1 ? { ...rest, ...resolve(only, root) } : found
  }

  const compare = (before: JsonSchema, after: JsonSchema, at: string, depth: number): ReadonlyArray<string> => {
    const old = resolve(before, older)
    const now = resolve(after, newer)
    if (depth > 32) return [`${at}: too deep to be compared`]
    const strange = [...new Set([...Object.keys(old), ...Object.keys(now)])].filter(
      (keyword) => !understood.has(keyword) && !silent.has(keyword)
    )
    if (strange.length > 0) return [`${at}: ${strange.join(", ")} cannot be compared`]
    if (old.anyOf !== undefined || now.anyOf !== undefined) {
      const choices = now.anyOf ?? [now]
      return (old.anyOf ?? [old]).flatMap((choice, index) =>
        choices.some((other) => compare(choice, other, at, depth + 1).length === 0)
          ? []
          : [
              old.anyOf === undefined
                ? `${at}: what it was is not among what it may be now`
                : `${at}: what it may be (number ${index + 1}) is not among what it may be now`
            ]
      )
    }
    if (JSON.stringify(old.allOf) !== JSON.stringify(now.allOf) && now.allOf !== undefined) {
      return [`${at}: has a condition that it did not have`]
    }
    if (old.type !== now.type && now.type !== undefined && !(old.type === "integer" && now.type === "number")) {
      return [`${at}: was ${old.type ?? "anything"} and is ${now.type}`]
    }
    return [...values(old, now, at), ...objects(old, now, at, depth), ...elements(old, now, at, depth)]
  }

  const values = (old: JsonSchema, now: JsonSchema, at: string) => {
    const gone = now.enum === undefined ? [] : (old.enum ?? [undefined]).filter((value) => !now.enum?.includes(value))
    return [
      ...gone.map((value) =>
        value === undefined
          ? `${at}: may no longer be any ${old.type ?? "value"}`
          : `${at}: may no longer be ${JSON.stringify(value)}`
      ),
      ...(now.minimum !== undefined && (old.minimum ?? -Infinity) < now.minimum
        ? [`${at}: may no longer be less than ${now.minimum}`]
        : []),
      ...(now.maximum !== undefined && (old.maximum ?? Infinity) > now.maximum
        ? [`${at}: may no longer be more than ${now.maximum}`]
        : []),
      ...(now.pattern !== undefined && now.pattern !== old.pattern
        ? [`${at}: has to look like ${now.pattern} now`]
        : [])
    ]
  }

  const objects = (old: JsonSchema, now: JsonSchema, at: string, depth: number) => {
    const [had, has] = [old.properties ?? {}, now.properties ?? {}]
    const path = (name: string) => (at === "payload" ? name : `${at}.${name}`)
    const closed = now.additionalProperties === false
    return [
      ...Object.keys(had).flatMap((name) => {
        const [was, is] = [had[name], has[name]]
        if (was === undefined) return []
        if (is !== undefined) return compare(was, is, path(name), depth + 1)
        return old.required?.includes(name) === true
          ? [`${path(name)}: was taken away, and readers need it`]
          : closed
            ? [`${path(name)}: was taken away, and older events have it`]
            : []
      }),
      ...(now.required ?? [])
        .filter((name) => old.required?.includes(name) !== true)
        .map((name) =>
          name in had
            ? `${path(name)}: has to be there now, and older events may not have it`
            : `${path(name)}: was added and has to be there, and older events do not have it`
        ),
      ...(old.required ?? [])
        .filter((name) => name in has && now.required?.includes(name) !== true)
        .map((name) => `${path(name)}: need not be there any more, and readers need it`),
      ...(closed && old.type === "object" && old.additionalProperties !== false
        ? [`${at}: may no longer have properties that are not named`]
        : []),
      ...(typeof now.additionalProperties === "object"
        ? typeof old.additionalProperties === "object"
          ? compare(old.additionalProperties, now.additionalProperties, path("*"), depth + 1)
          : [`${path("*")}: what is not named has a type now`]
        : [])
    ]
  }

  const elements = (old: JsonSchema, now: JsonSchema, at: string, depth: number) =>
    now.items === undefined ? [] : compare(old.items ?? {}, now.items, `${at}[]`, depth + 1)

  return compare(older, newer, "payload", 0)
}
