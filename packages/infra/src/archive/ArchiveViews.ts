import { Effect } from "effect"
import type { DuckDb } from "../duckdb/DuckDb.ts"
import { quoted } from "../duckdb/DuckDb.ts"
import { ObjectStore } from "../objects/ObjectStore.ts"
import type { ArchiveFile } from "./ArchiveFile.ts"

/** What is written in the files, and what their folders say. */
const columns = `bus, topic, day, log_partition, log_offset, key, event_id, event_type, occurred_at, region,
  aggregate_version, trace_parent, envelope`

const nothing = `select null::varchar as bus, null::varchar as topic, null::date as day, null::integer as log_partition,
  null::bigint as log_offset, null::varchar as key, null::varchar as event_id, null::varchar as event_type,
  null::timestamptz as occurred_at, null::varchar as region, null::integer as aggregate_version,
  null::varchar as trace_parent, null::varchar as envelope where false`

const reading = (paths: ReadonlyArray<string>) => `select ${columns} from (
  select * exclude (filename), regexp_extract(filename, '(\\d+)-\\d+\\.parquet$', 1)::integer as log_partition
  from read_parquet([${paths.map(quoted).join(", ")}], filename = true, hive_partitioning = true,
    hive_types = {'bus': varchar, 'topic': varchar, 'day': date}))`

/**
 * Two views: `log` is what stood on the bus, `events` the same with each event once, which a relay that died may have
 * published twice, and with its `payload` as JSON.
 */
export const create = Effect.fnUntraced(function* ({ run }: DuckDb, files: ReadonlyArray<ArchiveFile>) {
  const objects = yield* ObjectStore
  const paths = yield* Effect.forEach(files, ({ name }) => objects.localFile(name), { concurrency: 8 })
  yield* run(`create or replace view log as ${paths.length === 0 ? nothing : reading(paths)}`)
  yield* run(`create or replace view events as
    select *, envelope::json->'payload' as payload from log
    qualify row_number() over (partition by topic, day, event_id order by bus, log_offset) = 1`)
})
