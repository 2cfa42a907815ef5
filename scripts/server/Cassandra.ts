import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Client } from "cassandra-driver"
import { java } from "./Java.ts"
import * as Maven from "./Maven.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "5.0.9"

export const jars: Maven.Jars = { name: "cassandra", artifacts: [`org.apache.cassandra:cassandra-all:${version}`] }

const nameIn = ({ folder }: Pick<Place, "folder">) => join(folder, "cluster-name")

/** Its log is on the disk before it acknowledges: by default one that is killed has forgotten its last writes. */
const settings = ({ folder, port }: Place) => {
  const data = join(folder, "data")
  return `cluster_name: ${readFileSync(nameIn({ folder }), "utf8")}
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: group
commitlog_sync_group_window: 5ms
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
commitlog_directory: ${data}/commitlog
data_file_directories: [${data}/data]
hints_directory: ${data}/hints
cdc_raw_directory: ${data}/cdc
saved_caches_directory: ${data}/saved_caches
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
broadcast_rpc_address: 127.0.0.1
native_transport_port: ${port("native")}
storage_port: ${port("storage")}
start_native_transport: true
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "127.0.0.1:${port("storage")}"
authenticator: AllowAllAuthenticator
authorizer: AllowAllAuthorizer
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
file_cache_size: 32MiB
networking_cache_size: 32MiB
key_cache_size: 8MiB
concurrent_reads: 8
concurrent_writes: 8
concurrent_counter_writes: 4
concurrent_compactors: 1
auto_snapshot: false
memtable:
  configurations:
    default:
      class_name: SkipListMemtable
`
}

const logging = `<configuration><appender name="S" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%d %-5level %logger{20} %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="S"/></root></configuration>
`

const exported = [
  "java.base/jdk.internal.misc",
  "java.management.rmi/com.sun.jmx.remote.internal.rmi",
  "java.rmi/sun.rmi.registry",
  "java.rmi/sun.rmi.server",
  "java.rmi/sun.rmi.transport",
  "java.rmi/sun.rmi.transport.tcp",
  "java.sql/java.sql",
  "java.base/java.lang.ref",
  "jdk.unsupported/sun.misc",
  "jdk.attach/sun.tools.attach"
]
const opened = [
  "java.base/java.lang.module",
  "java.base/jdk.internal.loader",
  "java.base/jdk.internal.ref",
  "java.base/jdk.internal.reflect",
  "java.base/jdk.internal.math",
  "java.base/jdk.internal.module",
  "java.base/jdk.internal.util.jar",
  "java.base/sun.nio.ch",
  "java.base/java.io",
  "java.base/java.lang",
  "java.base/java.lang.reflect",
  "java.base/java.nio",
  "java.base/java.util",
  "java.base/java.util.concurrent",
  "java.base/java.util.concurrent.atomic",
  "jdk.management/com.sun.management.internal"
]

const addressOf = ({ port }: Place) => `127.0.0.1:${port("native")}`

const clusterNameOf = async (place: Place): Promise<string | undefined> => {
  const client = new Client({
    contactPoints: [addressOf(place)],
    localDataCenter: "datacenter1",
    socketOptions: { connectTimeout: 2_000, readTimeout: 4_000 },
    pooling: { warmup: false }
  })
  try {
    const { rows } = await client.execute("select cluster_name from system.local")
    return String(rows[0]?.["cluster_name"])
  } catch {
    return undefined
  } finally {
    await client.shutdown().catch(() => {})
  }
}

export const cassandra: Server = {
  name: "cassandra",
  version,
  image: `cassandra:${version}`,
  ports: { native: 9042, storage: 7000, jmx: 7199 },
  needs: [],
  readyWithinMs: 120_000,
  install: async (place) => {
    await java({ major: 17, exactly: true }, place)
    await Maven.install(jars, place)
  },
  prepare: async (place) => {
    const { folder } = place
    const [config, log] = [join(folder, "cassandra.yaml"), join(folder, "logback.xml")]
    mkdirSync(folder, { recursive: true })
    if (!existsSync(nameIn(place))) writeFileSync(nameIn(place), `merkato-${crypto.randomUUID()}`)
    writeFileSync(config, settings(place))
    writeFileSync(log, logging)
    const properties = {
      "jdk.attach.allowAttachSelf": "true",
      "cassandra.config": `file:${config}`,
      "logback.configurationFile": `file:${log}`,
      "cassandra.storagedir": join(folder, "data"),
      "cassandra-foreground": "yes",
      // It is alone: there is nobody to wait for.
      "cassandra.skip_wait_for_gossip_to_settle": "0",
      "cassandra.ring_delay_ms": "100",
      "cassandra.initial_token": "0",
      "cassandra.jmx.local.port": String(place.port("jmx")),
      "cassandra.superuser_setup_delay_ms": "0"
    }
    const heap = ["-Xms256m", "-Xmx512m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    const start = ["-cp", Maven.classPath(jars, place), "org.apache.cassandra.service.CassandraDaemon"]
    return {
      command: [
        await java({ major: 17, exactly: true }, place),
        ...heap,
        ...exported.flatMap((name) => ["--add-exports", `${name}=ALL-UNNAMED`]),
        ...opened.flatMap((name) => ["--add-opens", `${name}=ALL-UNNAMED`]),
        ...Object.entries(properties).map(([name, value]) => `-D${name}=${value}`),
        ...start
      ]
    }
  },
  isReady: async (place) => {
    const [name, expected] = [await clusterNameOf(place), readFileSync(nameIn(place), "utf8")]
    if (name !== undefined && name !== expected) {
      throw new Refused(`At ${addressOf(place)} answers another Cassandra (${name}, not ${expected}).`)
    }
    return name === expected
  },
  settings: (place) => ({ CASSANDRA_CONTACT_POINTS: addressOf(place) })
}
