import { spawnSync } from "node:child_process"
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { installPackages } from "../../scripts/server/Apt.ts"
import { inventoryProto } from "@merkato/rpc/grpc/InventoryGrpc"

/** The distribution's: the one on the PATH may be another, without its packages. */
const python = "/usr/bin/python3"
const protocols = "/usr/share/grpc-proto"
const packages = ["python3-grpcio", "python3-protobuf", "protobuf-compiler", "grpc-proto"]
const program = new URL("./foreign-grpc.py", import.meta.url).pathname

const isThere = () =>
  existsSync(protocols) &&
  existsSync("/usr/bin/protoc") &&
  spawnSync(python, ["-c", "import grpc, google.protobuf"]).status === 0

/** Whether grpcio of Python and protoc can be had here; where not, the log says what is not tested. Under CI=true that is a failure. */
export const foreignGrpcIsThere = async (what: string): Promise<boolean> => {
  if (isThere()) return true
  try {
    await installPackages(packages, "grpcio of Python", { cache: "", say: () => {} })
    return isThere()
  } catch (error) {
    if (process.env["CI"] === "true") throw error
    console.log(`NOT RUN: ${what}: no grpcio of Python can be had here: ${String(error).split("\n", 1)[0]}`)
    return false
  }
}

const run = (command: string, args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) => {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    timeout: 60_000
  })
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`)
  return stdout
}

/** What the foreign client was told, on code that it makes of the contract in this folder. */
export const foreignGrpc = (folder: string, args: ReadonlyArray<string>): Readonly<Record<string, unknown>> => {
  writeFileSync(join(folder, "inventory.proto"), inventoryProto)
  const official = ["health/v1/health", "reflection/v1/reflection", "reflection/v1alpha/reflection"]
  run("/usr/bin/protoc", [
    `-I${folder}`,
    `-I${protocols}`,
    `--python_out=${folder}`,
    "inventory.proto",
    ...official.map((name) => `grpc/${name}.proto`)
  ])
  return JSON.parse(run(python, [program, ...args], { PYTHONPATH: folder }))
}
