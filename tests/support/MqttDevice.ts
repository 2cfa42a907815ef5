import { type IPublishPacket, MqttClient, connect } from "mqtt"

/** What a device tells of a shelf. */
export interface Told {
  readonly sku: string
  readonly delta: number
  readonly messageId: string
}

const topicOf = (sku: string) => `iot/inventory/${sku}/delta`

/** Messages that a device publishes before the first of them is acknowledged. */
const window = 20

/**
 * A device as its maker would build it, on a client library of others: QoS 1, a session of its own, and all that it published
 * once more when its connection was lost: a broker that was killed may have lost what it had acknowledged.
 */
export class MqttDevice {
  private readonly client: MqttClient
  private readonly acknowledged: Array<Told> = []
  private readonly repeats: Array<Promise<void>> = []
  /** Messages that were published, each as often as it was. */
  sent = 0

  constructor(
    url: string,
    private readonly deviceId: string,
    protocolVersion: 4 | 5
  ) {
    this.client = connect(url, {
      clientId: deviceId,
      protocolVersion,
      clean: false,
      ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: 3_600 } } : {}),
      reconnectPeriod: 50,
      connectTimeout: 5_000,
      resubscribe: false
    })
    this.client.on("error", () => {})
    let lives = 0
    this.client.on("connect", () => {
      if (lives++ > 0) for (const told of this.acknowledged) this.repeats.push(this.publish(told))
    })
  }

  private publish({ sku, delta, messageId }: Told): Promise<void> {
    this.sent += 1
    const { deviceId } = this
    const payload = JSON.stringify({ delta, reason: "SENSOR", messageId, deviceId })
    return new Promise((resolve, reject) => {
      this.client.publish(topicOf(sku), payload, { qos: 1 }, (error) => (error ? reject(error) : resolve()))
    })
  }

  /** Publishes all, and returns when the broker has acknowledged each. */
  async tell(all: ReadonlyArray<Told>): Promise<void> {
    const rest = all.values()
    const lane = async () => {
      for (const told of rest) {
        await this.publish(told)
        this.acknowledged.push(told)
      }
    }
    await Promise.all(Array.from({ length: window }, lane))
  }

  /** What was published again is acknowledged, too. */
  async settled(): Promise<void> {
    let known = -1
    while (known !== this.repeats.length) {
      known = this.repeats.length
      await Promise.all(this.repeats)
    }
  }

  /** Pulls the plug; it connects again by itself. */
  cut(): void {
    this.client.stream.destroy()
  }

  async end(): Promise<void> {
    await this.client.endAsync()
  }
}

/** What is published to a topic from now on. */
export const listener = (url: string, topic: string) =>
  new Promise<{ readonly heard: () => ReadonlyArray<IPublishPacket>; readonly end: () => Promise<void> }>(
    (resolve, reject) => {
      const heard: Array<IPublishPacket> = []
      const client = connect(url, { protocolVersion: 5 })
      client.once("error", reject)
      client.on("message", (_topic, _payload, packet) => void heard.push(packet))
      client.once("connect", () =>
        client.subscribe(topic, { qos: 1 }, (error) => {
          if (error) reject(error)
          else resolve({ heard: () => heard, end: () => client.endAsync() })
        })
      )
    }
  )
