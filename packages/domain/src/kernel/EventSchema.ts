import { Predicate, Schema } from "effect"

/** The part of JSON Schema (2020-12) that the schemas of events are written in; what else there is, is not understood. */
export interface JsonSchema {
  readonly $id?: string
  readonly $schema?: string
  readonly $ref?: string
  readonly $defs?: Readonly<Record<string, JsonSchema>>
  readonly title?: string
  readonly description?: string
  readonly type?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: boolean | JsonSchema
  readonly items?: JsonSchema
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly allOf?: ReadonlyArray<JsonSchema>
  readonly minimum?: number
  readonly maximum?: number
  readonly pattern?: string
}

/**
 * Says of every object whether it may have properties that are not named. How texts look is left out: no version said it
 * from the first, and to say it later would promise readers less than the version before.
 */
const objectsAre = (open: boolean, value: unknown): unknown => {
  if (Array.isArray(value)) return value.map((each) => objectsAre(open, each))
  if (!Predicate.isObject(value)) return value
  const copy = Object.fromEntries(
    Object.entries(value)
      .filter(([key, each]) => key !== "pattern" || typeof each !== "string")
      .map(([key, each]) => [key, objectsAre(open, each)])
  )
  return "properties" in copy && Predicate.isObject(copy["properties"]) ? { ...copy, additionalProperties: open } : copy
}

interface Definition {
  readonly type: string
  readonly payload: Schema.Top
}

const schemaOf = ({ type, payload }: Definition, open: boolean): JsonSchema => {
  const { schema, definitions } = Schema.toJsonSchemaDocument(payload)
  const named = Object.keys(definitions).length === 0 ? {} : { $defs: definitions }
  // The generator's own types are wider; who compares schemas looks at each keyword itself.
  return objectsAre(open, {
    $id: `urn:merkato:event:${type}`,
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: type,
    ...schema,
    ...named
  }) as JsonSchema
}

/**
 * What may stand in a payload, as it is written: no property that is not named. Registries compare schemas in this form:
 * with open objects, a property that is added might have been in older data with another type.
 */
export const writtenSchema = (definition: Definition): JsonSchema => schemaOf(definition, false)

/**
 * The written form as registries get it. They tell by `$schema` how to compare, and not all know 2020-12; all know draft 7,
 * in which our dozen keywords mean the same.
 */
export const registeredSchema = (definition: Definition): JsonSchema => ({
  ...writtenSchema(definition),
  $schema: "http://json-schema.org/draft-07/schema#"
})

/** What a reader has to take: properties that a later version added are passed over. */
export const readSchema = (definition: Definition): JsonSchema => schemaOf(definition, true)
