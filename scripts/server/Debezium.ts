import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { java } from "./Java.ts"
import * as Maven from "./Maven.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "3.4.1.Final"
const kafkaVersion = "4.3.1"

/** Debezium's connector for Postgres, and the Kafka Connect that it runs in. */
export const jars: Maven.Jars = {
  name: "debezium",
  artifacts: [
    `org.apache.kafka:connect-runtime:${kafkaVersion}`,
    `org.apache.kafka:connect-json:${kafkaVersion}`,
    `io.debezium:debezium-connector-postgres:${version}`,
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
  ]
}

const header = "X-Merkato-Server"

/** A worker alone; what it is told and how far it has come is in topics of its own. */
const properties = (place: Place, mark: string) => `bootstrap.servers=${place.setting("KAFKA_BROKERS")}
group.id=merkato-connect
listeners=http://127.0.0.1:${place.port("http")}
response.http.headers.config=set ${header}:${mark}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=connect.configs
config.storage.replication.factor=1
offset.storage.topic=connect.offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect.status
status.storage.replication.factor=1
status.storage.partitions=1
offset.flush.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
plugin.discovery=service_load
`

const logging = `status=WARN
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.c.ref=C
`

const markIn = ({ folder }: Place) => join(folder, "mark")
const urlOf = ({ port }: Place) => `http://127.0.0.1:${port("http")}`

export const debezium: Server = {
  name: "debezium",
  version,
  image: `quay.io/debezium/connect:${version}`,
  ports: { http: 8083 },
  needs: ["kafka"],
  readyWithinMs: 120_000,
  install: (place) => Maven.install(jars, place),
  prepare: async (place) => {
    const program = await java({ major: 17 }, place)
    const [config, log4j] = [join(place.folder, "worker.properties"), join(place.folder, "log4j2.properties")]
    mkdirSync(place.folder, { recursive: true })
    const mark = crypto.randomUUID()
    writeFileSync(markIn(place), mark)
    writeFileSync(config, properties(place, mark))
    writeFileSync(log4j, logging)
    return {
      command: [
        program,
        `-Dlog4j2.configurationFile=file:${log4j}`,
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Xms128m",
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-cp",
        Maven.classPath(jars, place),
        "org.apache.kafka.connect.cli.ConnectDistributed",
        config
      ]
    }
  },
  isReady: async (place) => {
    const response = await fetch(`${urlOf(place)}/connectors`, { signal: AbortSignal.timeout(2_000) }).catch(
      () => undefined
    )
    // While it starts it answers anything.
    if (response?.ok !== true) return false
    if (response.headers.get(header) !== readFileSync(markIn(place), "utf8")) {
      throw new Refused(`At 127.0.0.1:${place.port("http")} answers another server.`)
    }
    return true
  },
  settings: (place) => ({ CONNECT_URL: urlOf(place) })
}
