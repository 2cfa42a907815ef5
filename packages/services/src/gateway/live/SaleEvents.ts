import { Effect, type Scope } from "effect"
import type { Delivery } from "@merkato/infra/events/EventBus"
import { events, limits } from "@merkato/rpc/live/FlashSalesLive"

/** An event as it goes over the wire, and its id. */
export interface SaleEvent {
  readonly id: string
  readonly bytes: Uint8Array
}

/** Takes an event, or says that it can take no more; does not wait. */
export type Taker = (bytes: Uint8Array) => boolean

const names: ReadonlyMap<string, string> = new Map(events.map(({ event, definition }) => [definition.type, event]))
const encoder = new TextEncoder()

/** A message of an event stream (HTML, "Server-sent events"). JSON has no line breaks in it. */
export const message = (event: string, data: unknown, id?: string): Uint8Array =>
  encoder.encode(`event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`)

/** The event as it goes over the wire; undefined for one that is not told here. */
export const saleEventOf = ({ envelope: { eventId, eventType, payload } }: Delivery): SaleEvent | undefined => {
  const name = names.get(eventType)
  return name === undefined ? undefined : { id: eventId, bytes: message(name, payload, eventId) }
}

/** What was told of flash sales lately, oldest first, and who is told what comes. */
export interface SaleEvents {
  /** Is told what comes from now on until the scope closes. */
  readonly join: (taker: Taker) => Effect.Effect<void, never, Scope.Scope>
  /** How many have joined. */
  readonly joined: () => number
  /** What came after an event; undefined when that is not among what is kept. */
  readonly since: (id: string) => ReadonlyArray<SaleEvent> | undefined
  /** Puts what stood in the log before the first event that was told. */
  readonly precede: (past: ReadonlyArray<SaleEvent>) => void
  /** Tells an event, once; whether it was new. */
  readonly tell: (event: SaleEvent) => boolean
  /** Sends everybody something that is no event. */
  readonly send: (bytes: Uint8Array) => void
}

export const make = (): SaleEvents => {
  const takers = new Set<Taker>()
  // A Map keeps the order in which its entries came.
  let kept = new Map<string, SaleEvent>()

  const send = (bytes: Uint8Array) => {
    for (const taker of takers) if (!taker(bytes)) takers.delete(taker)
  }
  const trim = () => {
    for (const id of kept.keys()) {
      if (kept.size <= limits.keptEvents) break
      kept.delete(id)
    }
  }
  return {
    join: (taker) =>
      Effect.acquireRelease(
        Effect.sync(() => void takers.add(taker)),
        () => Effect.sync(() => takers.delete(taker))
      ),
    joined: () => takers.size,
    since: (id) => {
      if (!kept.has(id)) return undefined
      const all = [...kept.values()]
      return all.slice(all.findIndex((event) => event.id === id) + 1)
    },
    precede: (past) => {
      const told = kept
      kept = new Map(past.filter(({ id }) => !told.has(id)).map((event) => [event.id, event]))
      for (const [id, event] of told) kept.set(id, event)
      trim()
    },
    tell: (event) => {
      if (kept.has(event.id)) return false
      kept.set(event.id, event)
      trim()
      send(event.bytes)
      return true
    },
    send
  }
}
