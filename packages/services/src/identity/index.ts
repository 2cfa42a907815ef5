import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { Identity as IdentityUseCases } from "./Identity.ts"
import { IdentityHandlers } from "./IdentityHandlers.ts"
import { endedSessions } from "./IdentityStore.ts"

export const Identity = BoundedContext.make("identity", {
  contract: IdentityRpc,
  handlers: IdentityHandlers,
  useCases: IdentityUseCases.layer,
  topic: "user.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  passing: [endedSessions]
})
