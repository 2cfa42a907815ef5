import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import * as CommandLine from "@merkato/infra/runtime/CommandLine"
import * as Main from "@merkato/infra/runtime/Main"
import { paymentGateways } from "./PaymentGateways.ts"

paymentGateways.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide(Layer.mergeAll(NodeServices.layer, CommandLine.layer)),
  Main.run
)
