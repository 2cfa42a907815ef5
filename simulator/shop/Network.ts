import { Cause, Effect, Exit, Schema } from "effect"
import { Rpc, type RpcGroup } from "effect/rpc"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext, type RequestContextShape } from "@merkato/domain/kernel/RequestContext"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { between } from "../kernel/Prng.ts"
import type { SimProcess, World } from "../kernel/World.ts"
import type { Host } from "./ShopProcess.ts"

type Call = (payload: unknown) => Effect.Effect<unknown, unknown>

/** What the network needs to know of a contract: its operations with their schemas. */
export interface Described {
  readonly contract: string
  readonly group: RpcGroup.RpcGroup<Rpc.Any>
}

/** How long a caller waits for another process; after that nobody knows what it did (as in `Contract.remote`). */
const answerWithin = "15 seconds"

/** How long the network may hold a message back: seldom longer than the order process leaves its owner for a step. */
const latestMs = 14_000

/** Operations that are not safe to repeat: no client of theirs does, so neither does the network. */
const notRepeatable = new Set(["inventory.Adjust", "catalogue.AddProduct", "cart.CreateCart"])

const unreachable = (service: string) => new ServiceUnavailable({ service, retryAfterSeconds: 1 })

const RequestHeaders = Schema.Struct({
  principal: Principal,
  correlationId: Schema.String,
  traceParent: Schema.String
})

/** How one operation's messages are written and read: through the contract's schemas, as between real processes. */
const codecOf = (rpc: Rpc.Any) => {
  const payload = Schema.toCodecJson(
    (rpc as unknown as { readonly payloadSchema: Schema.Codec<unknown> }).payloadSchema
  )
  const exit = Schema.toCodecJson(Rpc.exitSchema(rpc) as unknown as Schema.Codec<Exit.Exit<unknown, unknown>>)
  const message = Schema.fromJsonString(Schema.Struct({ headers: Schema.toCodecJson(RequestHeaders), payload }))
  return {
    encodeRequest: Schema.encodeUnknownSync(message),
    decodeRequest: Schema.decodeUnknownSync(message),
    encodeExit: Schema.encodeUnknownSync(Schema.fromJsonString(exit)),
    decodeExit: Schema.decodeUnknownSync(Schema.fromJsonString(exit))
  }
}

const codecs = new Map<Rpc.Any, ReturnType<typeof codecOf>>()

/** Made once for all runs: it remembers nothing of them. */
const knownCodec = (rpc: Rpc.Any) => {
  const known = codecs.get(rpc) ?? codecOf(rpc)
  codecs.set(rpc, known)
  return known
}

/** The network between the processes: loses, delays, duplicates and reorders messages, and loses replies after the fact. */
export class Network {
  /** Defects that crossed it: mistakes of the shop, each with the operation it broke. */
  readonly defects: Array<string> = []

  constructor(
    private readonly world: World,
    private readonly hosts: () => ReadonlyArray<Host>
  ) {}

  /** The contract as a process calls it that does not answer it itself. */
  private remote(from: SimProcess, { contract, group }: Described): ReadonlyMap<string, Call> {
    return new Map([...group.requests.values()].map((rpc) => [rpc._tag, this.call(from, contract, rpc)]))
  }

  private call(from: SimProcess, contract: string, rpc: Rpc.Any): Call {
    const name = `${contract}.${rpc._tag}`
    const codec = knownCodec(rpc)
    return (payload) =>
      Effect.gen({ self: this }, function* () {
        const headers = yield* RequestContext
        const message = codec.encodeRequest({ headers, payload })
        const answer = yield* this.exchange(from, contract, name, message, (request) => {
          const { headers, payload } = codec.decodeRequest(request)
          return { headers, payload, encode: codec.encodeExit }
        })
        return yield* codec.decodeExit(answer)
      }).pipe(
        Effect.timeout(answerWithin),
        Effect.mapError((error) => (Cause.isTimeoutError(error) ? unreachable(contract) : error))
      )
  }

  /** Sends a message and waits for its answer, which may never come. */
  private exchange(
    from: SimProcess,
    contract: string,
    name: string,
    message: string,
    decode: (message: string) => {
      readonly headers: RequestContextShape
      readonly payload: unknown
      readonly encode: (exit: unknown) => string
    }
  ): Effect.Effect<string, ServiceUnavailable> {
    const { world } = this
    const { faults } = world
    return Effect.callback<string, ServiceUnavailable>((resume) => {
      let waiting = true
      const running = new Set<() => void>()
      const finish = (effect: Effect.Effect<string, ServiceUnavailable>) => {
        if (!waiting) return
        waiting = false
        resume(effect)
      }

      const reply = (to: Host, answer: string) => {
        if (faults.happens("replyLost")) return world.log(`  the reply to ${name} is lost`)
        const arrive = () =>
          world.operation(from, `${from.name} hears from ${to.process.name} about ${name}`, () =>
            finish(Effect.succeed(answer))
          )
        if (!faults.happens("replyDelayed")) return arrive()
        world.timer(
          world.outside,
          between(() => faults.amount("replyDelayed") ** 4, 1, latestMs),
          arrive
        )
      }

      const deliver = (to: Host) => {
        const { calls } = to
        const handler = calls?.(contract)?.get(name.slice(contract.length + 1))
        if (!to.process.alive || handler === undefined) {
          return finish(Effect.fail(unreachable(contract)))
        }
        const { headers, payload, encode } = decode(message)
        const fiber = Effect.runForkWith(to.process.context)(
          Effect.exit(handler(payload)).pipe(Effect.provideService(RequestContext, headers))
        )
        const hangUp = () => fiber.interruptUnsafe()
        running.add(hangUp)
        fiber.addObserver((outcome) => {
          running.delete(hangUp)
          if (!to.process.alive || Exit.isFailure(outcome)) return
          const exit = outcome.value
          if (Exit.isFailure(exit)) {
            const defect = exit.cause.reasons.find(Cause.isDieReason)
            if (defect !== undefined) this.defects.push(`${name}: ${String(defect.defect)}`)
          }
          world.operation(to.process, `${to.process.name} answers ${name}`, () => reply(to, encode(exit)))
        })
      }

      const send = (first: boolean) => {
        const candidates = this.hosts().filter((host) => host.process.alive && host.contracts.has(contract))
        const to = candidates[Math.floor(world.choose() * candidates.length)]
        if (to === undefined) {
          world.log("  nobody is there")
          return finish(Effect.fail(unreachable(contract)))
        }
        if (faults.happens("requestLost")) return world.log("  the request is lost")
        if (first && !notRepeatable.has(name) && faults.happens("requestDuplicated")) {
          world.operation(from, `${name} once more`, () => send(false))
        }
        const arrive = () => world.operation(world.outside, `${name} reaches ${to.process.name}`, () => deliver(to))
        if (!faults.happens("requestDelayed")) return arrive()
        world.timer(
          world.outside,
          between(() => faults.amount("requestDelayed") ** 4, 1, latestMs),
          arrive
        )
      }

      world.operation(from, `${from.name} asks for ${name} ${message}`, () => {
        if (faults.happens("callerHangsUp")) {
          world.timer(
            from,
            between(() => faults.amount("callerHangsUp"), 1, 50),
            () => {
              for (const hangUp of running) hangUp()
              finish(Effect.fail(unreachable(contract)))
            }
          )
        }
        send(true)
      })

      // A caller that goes away breaks the connection: the handler's fiber is interrupted, as that of an HTTP request.
      return Effect.sync(() => {
        waiting = false
        for (const hangUp of running) hangUp()
      })
    })
  }

  /** The switchboard of a process: its own contexts answer in process, the rest over the network. */
  switchboardOf(from: SimProcess, contracts: ReadonlyArray<Described>): Switchboard["Service"] {
    const local = new Map<string, ReadonlyMap<string, Call>>()
    const remote = new Map(contracts.map((described) => [described.contract, this.remote(from, described)]))
    return Switchboard.of({
      connect: (contract, calls) => Effect.sync(() => void local.set(contract, calls)),
      calls: (contract) => local.get(contract) ?? remote.get(contract),
      connected: Effect.sync(() => [...local.keys(), ...remote.keys()])
    })
  }
}
