import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import {
  Email,
  EmailTaken,
  InvalidCredentials,
  InvalidRefreshToken,
  Password,
  PersonName,
  Session
} from "@merkato/domain/identity/Identity"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
import { Contract } from "../contract/Contract.ts"
import { command } from "../contract/Operation.ts"

export const IdentityGroup = RpcGroup.make(
  command("Register", {
    payload: { email: Email, password: Password, name: PersonName, region: Region },
    success: Schema.Struct({ userId: UserId }),
    errors: [EmailTaken]
  }),
  command("SignIn", { payload: { email: Email, password: Password }, success: Session, errors: [InvalidCredentials] }),
  command("Refresh", { payload: { refreshToken: Schema.String }, success: Session, errors: [InvalidRefreshToken] }),
  command("SignOut", { payload: {}, success: Schema.Void, errors: [Forbidden] })
)

export class IdentityRpc extends Contract<IdentityRpc>()("identity", IdentityGroup) {}
