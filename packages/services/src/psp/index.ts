import * as Migrations from "@merkato/infra/postgres/Migrations"

export { PspRoutes } from "./PspRoutes.ts"

/** The built-in test gateway keeps its own book, in a schema (or a database) of its own. */
export const migrate = Migrations.run({
  schema: "psp",
  folder: new URL("./migrations", import.meta.url),
  common: false
})
