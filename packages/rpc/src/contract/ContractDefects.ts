import { Data } from "effect"

/** Nobody in this deployment answers the contract, here or elsewhere: a wiring mistake, which readiness reports first. */
export class UnservedContract extends Data.TaggedError("UnservedContract")<{ readonly contract: string }> {
  override get message() {
    return `Nobody serves the contract "${this.contract}" in this deployment`
  }
}

/** Another context was called inside a database transaction, which would be atomic with it only by accident. */
export class CallInsideTransaction extends Data.TaggedError("CallInsideTransaction")<{
  readonly contract: string
  readonly operation: string
}> {
  override get message() {
    return `${this.contract}.${this.operation} was called inside a database transaction`
  }
}
