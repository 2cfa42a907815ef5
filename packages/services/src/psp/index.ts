import { Layer } from "effect"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import { Conducts } from "./Conduct.ts"
import { ControlDoor } from "./ControlDoor.ts"
import { Doors } from "./Door.ts"
import { Psp } from "./Psp.ts"
import { RestDoor } from "./RestDoor.ts"
import { SoapDoor } from "./SoapDoor.ts"

/** Both test gateways, SOAP and REST, and the door that tells them how to behave. */
export const routes = Layer.mergeAll(RestDoor, SoapDoor, ControlDoor).pipe(
  Layer.provide(Doors.layer),
  Layer.provide(Layer.merge(Psp.layer, Conducts.layer))
)

/** The test gateways keep their own books, in a schema (or a database) of their own. */
export const migrate = Migrations.run({
  schema: "psp",
  folder: new URL("./migrations", import.meta.url),
  common: false
})
