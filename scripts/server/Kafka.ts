import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Admin } from "@platformatic/kafka"
import { java } from "./Java.ts"
import * as Maven from "./Maven.ts"
import { type Place, Refused, run, type Server } from "./Server.ts"

const version = "4.3.1"

export const jars: Maven.Jars = {
  name: "kafka",
  artifacts: [`org.apache.kafka:kafka_2.13:${version}`, "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"]
}

/** Kafka's command line, which the bench measures itself by. */
export const toolJars: Maven.Jars = {
  name: "kafka-tools",
  artifacts: [`org.apache.kafka:kafka-tools:${version}`, "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"]
}

const addressOf = ({ port }: Place) => `127.0.0.1:${port("broker")}`

/** Where clients are sent to: to the broker itself, or to what stands in front of it. */
const advertised = (place: Place) => process.env["MERKATO_KAFKA_ADVERTISED"] ?? addressOf(place)

/** One node that is broker and controller; topics are made by who needs them, with their settings, and by nobody else. */
const properties = (place: Place) => `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${place.port("controller")}
listeners=PLAINTEXT://127.0.0.1:${place.port("broker")},CONTROLLER://127.0.0.1:${place.port("controller")}
advertised.listeners=PLAINTEXT://${advertised(place)}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=${join(place.folder, "data")}
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
`

/** Without it Kafka says nothing at all. */
const logging = `status=WARN
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %c{1} %m%n
rootLogger.level=INFO
rootLogger.appenderRef.c.ref=C
`

const clusterIdIn = ({ folder }: Place) => join(folder, "cluster-id")

/** As Kafka makes them: 16 bytes in 22 characters, none of which is a dash in front (its tool would take it for an option). */
const newClusterId = (): string => {
  const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64url")
  return id.startsWith("-") ? newClusterId() : id
}

const clusterIdOf = async (address: string): Promise<string | undefined> => {
  const admin = new Admin({
    clientId: "merkato-servers",
    bootstrapBrokers: [address],
    retries: 0,
    connectTimeout: 2_000,
    requestTimeout: 2_000
  })
  try {
    return (await admin.metadata({ topics: [] })).id
  } catch {
    return undefined
  } finally {
    await admin.close().catch(() => {})
  }
}

export const kafka: Server = {
  name: "kafka",
  version,
  image: `apache/kafka:${version}`,
  ports: { broker: 9092, controller: 9093 },
  needs: [],
  readyWithinMs: 90_000,
  install: (place) => Maven.install(jars, place),
  prepare: async (place) => {
    const { folder } = place
    const program = await java({ major: 17 }, place)
    const [config, log4j] = [join(folder, "server.properties"), join(folder, "log4j2.properties")]
    mkdirSync(folder, { recursive: true })
    writeFileSync(config, properties(place))
    writeFileSync(log4j, logging)
    const base = [
      program,
      `-Dlog4j2.configurationFile=file:${log4j}`,
      "-XX:TieredStopAtLevel=1",
      "-Xshare:auto"
    ] as const
    const classPath = ["-cp", Maven.classPath(jars, place)]
    if (!existsSync(clusterIdIn(place))) writeFileSync(clusterIdIn(place), newClusterId())
    if (!existsSync(join(folder, "data", "meta.properties"))) {
      const id = readFileSync(clusterIdIn(place), "utf8")
      const tool = [...base, "-Xmx128m", ...classPath, "kafka.tools.StorageTool", "format", "-t", id, "-c", config]
      const { code, output } = await run(tool)
      if (code !== 0) throw new Refused(`Kafka could not format its data folder:\n${output}`)
    }
    return { command: [...base, "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", ...classPath, "kafka.Kafka", config] }
  },
  isReady: async (place) => {
    const [id, expected] = [await clusterIdOf(addressOf(place)), readFileSync(clusterIdIn(place), "utf8")]
    if (id !== undefined && id !== expected) {
      throw new Refused(`At ${addressOf(place)} answers another Kafka (cluster ${id}, not ${expected}).`)
    }
    return id === expected
  },
  settings: (place) => ({ KAFKA_BROKERS: addressOf(place) })
}
