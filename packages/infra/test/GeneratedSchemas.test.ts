import { allEvents } from "@merkato/domain/events"
import * as GeneratedSchemas from "../src/events/registry/GeneratedSchemas.ts"
import { schemaRegistryContract } from "./SchemaRegistry.contract.ts"

schemaRegistryContract("without a server", GeneratedSchemas.layer(allEvents))
