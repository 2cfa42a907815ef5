import { S3Client } from "bun"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Go from "./Go.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "1.8.0"

const program: Go.Program = {
  name: "versitygw",
  package: "github.com/versity/versitygw/cmd/versitygw",
  version: `v${version}`,
  go: "1.25"
}

const bucket = "merkato"
const region = "us-east-1"
const accessKeyId = "merkato"

const secretIn = ({ folder }: Place) => join(folder, "secret")

/** Made for this place: who takes it is the one that was started here. */
const secretOf = (place: Place): string => readFileSync(secretIn(place), "utf8")

const endpointOf = ({ port }: Place) => `http://127.0.0.1:${port("s3")}`

/** versitygw: what S3 says, of a folder. */
export const s3: Server = {
  name: "s3",
  version,
  image: `versity/versitygw:v${version}`,
  ports: { s3: 7070 },
  needs: [],
  readyWithinMs: 20_000,
  isBuilt: true,
  install: (place) => Go.install(program, place),
  prepare: async (place) => {
    const data = join(place.folder, "data")
    mkdirSync(join(data, bucket), { recursive: true })
    if (!existsSync(secretIn(place))) {
      writeFileSync(secretIn(place), Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString("base64url"), {
        mode: 0o600
      })
    }
    return {
      command: [Go.pathOf(program, place), "--quiet", "--port", `127.0.0.1:${place.port("s3")}`, "posix", data],
      environment: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretOf(place) }
    }
  },
  isReady: async (place) => {
    const client = new S3Client({
      endpoint: endpointOf(place),
      bucket,
      region,
      accessKeyId,
      secretAccessKey: secretOf(place)
    })
    try {
      await client.list({ maxKeys: 1 })
      return true
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : ""
      if (/^(?:InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied)$/.test(code)) {
        throw new Refused(`At 127.0.0.1:${place.port("s3")} answers another S3, which does not know our key (${code}).`)
      }
      return false
    }
  },
  settings: (place) => ({
    S3_ENDPOINT: endpointOf(place),
    S3_BUCKET: bucket,
    S3_REGION: region,
    S3_ACCESS_KEY_ID: accessKeyId,
    S3_SECRET_ACCESS_KEY: secretOf(place)
  })
}
