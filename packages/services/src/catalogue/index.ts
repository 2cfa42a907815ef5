import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Catalogue as CatalogueUseCases } from "./Catalogue.ts"
import { CatalogueHandlers } from "./CatalogueHandlers.ts"

export const Catalogue = BoundedContext.make("catalogue", {
  contract: CatalogueRpc,
  handlers: CatalogueHandlers,
  useCases: CatalogueUseCases.layer,
  topic: "catalogue.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: []
})
