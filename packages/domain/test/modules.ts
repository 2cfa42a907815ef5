// What packages/domain/src exports, found by reading the folder: a new context is tested without being named here.
import { Schema } from "effect"
import { join } from "node:path"
import type { EventDefinition } from "../src/kernel/Event.ts"

const root = join(import.meta.dir, "../src")

interface Module {
  /** Below `src`: `orders/OrderEvents.ts`. */
  readonly path: string
  readonly exports: Readonly<Record<string, unknown>>
}

const load = async (path: string): Promise<Module> => ({ path, exports: await import(join(root, path)) })

/** Every module of the domain, sorted by path. */
export const modules: ReadonlyArray<Module> = await Promise.all(
  [...new Bun.Glob("**/*.ts").scanSync(root)].toSorted().map(load)
)

const isDefinition = (value: unknown): value is EventDefinition<unknown> =>
  typeof value === "object" &&
  value !== null &&
  "type" in value &&
  "topic" in value &&
  "payload" in value &&
  Schema.isSchema(value.payload)

/** The definitions in the `events` arrays of the contexts' `…Events.ts`. */
export const definitions: ReadonlyArray<EventDefinition<unknown>> = modules
  .filter(({ path }) => path.endsWith("Events.ts"))
  .flatMap(({ exports }) => (Array.isArray(exports["events"]) ? exports["events"].filter(isDefinition) : []))

/** The definitions that a `…Events.ts` exports one by one. */
export const exportedDefinitions: ReadonlyArray<EventDefinition<unknown>> = modules
  .filter(({ path }) => path.endsWith("Events.ts"))
  .flatMap(({ exports }) => Object.values(exports).filter(isDefinition))

/** The names of the error classes that the domain exports. */
export const errorNames: ReadonlyArray<string> = modules
  .flatMap(({ exports }) => Object.entries(exports))
  .filter(([, value]) => typeof value === "function" && value.prototype instanceof Error)
  .map(([name]) => name)
  .toSorted()
