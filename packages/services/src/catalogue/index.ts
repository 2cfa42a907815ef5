import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Catalogue as CatalogueUseCases } from "./Catalogue.ts"
import { CatalogueHandlers } from "./CatalogueHandlers.ts"
import * as ProductSearch from "./ProductSearch.ts"
import { productSearchCopy } from "./ProductSearchIndex.ts"

export const Catalogue = BoundedContext.make("catalogue", {
  contract: CatalogueRpc,
  handlers: CatalogueHandlers,
  useCases: CatalogueUseCases.layer.pipe(Layer.provide(ProductSearch.layer)),
  copies: [productSearchCopy],
  topic: "catalogue.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: []
})
