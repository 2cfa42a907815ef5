import { Context, type Effect, Schema } from "effect"

/** The connection to the broker is lost, or does not come about. What was not acknowledged comes again. */
export class MqttUnavailable extends Schema.TaggedError<MqttUnavailable>()("MqttUnavailable", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** What a device has published. */
export interface DeviceMessage {
  readonly topic: string
  readonly payload: Uint8Array
  /** MQTT 5 user properties; of one that is there twice, the first. */
  readonly properties: Readonly<Record<string, string>>
}

/** What is published to devices. */
export type Notice = DeviceMessage

/** The devices of the shop, behind a broker. */
export class Devices extends Context.Service<
  Devices,
  {
    /**
     * Receives what is published to topics, at least once, in order, until the connection is lost. Messages are acknowledged when
     * `handle` has returned and the notices that it returned are published; what is not acknowledged stays with the broker, and
     * comes again. At most `buffer` messages wait here, at most `together` of them are handed over at once.
     */
    readonly receive: <R>(options: {
      readonly topics: ReadonlyArray<string>
      readonly buffer: number
      readonly together: number
      readonly connected: Effect.Effect<void>
      readonly handle: (messages: ReadonlyArray<DeviceMessage>) => Effect.Effect<ReadonlyArray<Notice>, never, R>
    }) => Effect.Effect<never, MqttUnavailable, R>
  }
>()("merkato/infra/Devices") {}
