// What servers run from is what was listed when somebody had looked at it: here Maven is ours, and serves other bytes.
import { afterEach, expect, test } from "bun:test"
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { toolJars } from "../scripts/server/Kafka.ts"
import * as Maven from "../scripts/server/Maven.ts"
import { Refused } from "../scripts/server/Server.ts"
import { temporaryFolder } from "./support/Processes.ts"

const pathBefore = process.env["PATH"]
const { path: folder, remove } = temporaryFolder()
afterEach(() => {
  process.env["PATH"] = pathBefore
  delete process.env["JARS"]
  remove()
})

/** Answers as Maven and Java do, and puts `bytes` in the place of each jar. */
const standIns = `#!/bin/sh
case "$0" in */java) echo 'openjdk version "17.0.1"'; exit 0 ;; esac
for argument in "$@"; do
  case "$argument" in
    -Dmaven.repo.local=*) repository="\${argument#*=}" ;;
    -Dmdep.outputFile=*) list="\${argument#*=}" ;;
  esac
done
classpath=
for jar in $(cut -d ' ' -f 3 "$JARS"); do
  mkdir -p "$(dirname "$repository/$jar")"
  echo other bytes > "$repository/$jar"
  classpath="$classpath:$repository/$jar"
done
printf '%s' "\${classpath#:}" > "$list"
`

test("a jar that is not the one that was listed is refused by name, whoever serves it", async () => {
  for (const name of ["java", "mvn"]) {
    writeFileSync(join(folder, name), standIns)
    chmodSync(join(folder, name), 0o755)
  }
  const list = join(import.meta.dir, `../scripts/server/${toolJars.name}.sha256`)
  const jars = readFileSync(list, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split("  ")[1] ?? "")
  process.env["PATH"] = `${folder}:${pathBefore}`
  process.env["JARS"] = list
  const place = { cache: join(folder, "cache"), say: () => {} }
  const refused = await Maven.install(toolJars, place).then(
    () => undefined,
    (error: unknown) => error
  )
  expect(refused).toBeInstanceOf(Refused)
  expect(jars.filter((jar) => !String(refused).includes(jar))).toEqual([])
  // It was Maven that served them, and each is fetched anew the next time: what is there is not taken for right.
  expect(existsSync(join(place.cache, "maven", jars[0] ?? ""))).toBe(true)
  expect(await Maven.install(toolJars, place).catch((error: unknown) => error)).toBeInstanceOf(Refused)
}, 60_000)
