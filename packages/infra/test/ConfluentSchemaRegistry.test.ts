// What a registry is told and what is told of it, where no real one is needed; the real one is in tests/kafka.test.ts.
import { describe, expect, test } from "bun:test"
import { Effect, Layer, Logger } from "effect"
import * as ConfluentSchemaRegistry from "../src/events/registry/ConfluentSchemaRegistry.ts"
import { Policies } from "../src/policy/Policies.ts"

const quick = { backoff: { kind: "exactly", delaysMs: [1, 1] } }
const policies = Policies.layerWith({ "schema.registry": quick })

const open = (url: string) =>
  Effect.runPromise(
    Layer.build(ConfluentSchemaRegistry.layer(url).pipe(Layer.provide([policies, Logger.layer([])]))).pipe(
      Effect.scoped,
      Effect.as("opened"),
      Effect.catch(({ message }) => Effect.succeed(message))
    )
  )

const serving = async <A>(answer: (request: Request) => Response, use: (port: number) => Promise<A>): Promise<A> => {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answer })
  try {
    return await use(server.port ?? 0)
  } finally {
    await server.stop(true)
  }
}

describe("the registry that SCHEMA_REGISTRY_URL names", () => {
  test("is one that is spoken to over HTTP", async () => {
    for (const bad of ["", "127.0.0.1:8081", "kafka://ada:secret@127.0.0.1"]) {
      expect(await open(bad)).toBe("SCHEMA_REGISTRY_URL cannot be used: expected http://host:port")
    }
  })

  test("is told to be unreachable in one sentence, without the secret", async () => {
    const nobody = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    nobody.stop(true)
    const said = await open(`http://ada:secret@127.0.0.1:${nobody.port}/apis`)
    expect(said).toMatch(
      new RegExp(`^SCHEMA_REGISTRY_URL cannot be used: http://127\\.0\\.0\\.1:${nobody.port}: [^\\n]+$`)
    )
    expect(said).not.toContain("secret")
  })

  test("is told who asks, and asked under its whole path", async () => {
    const asked: Array<string> = []
    const said = await serving(
      (request) => {
        asked.push(`${new URL(request.url).pathname} ${request.headers.get("authorization")}`)
        return Response.json({ compatibilityLevel: "BACKWARD" })
      },
      (port) => open(`http://ada:s%40cret@127.0.0.1:${port}/apis/ccompat/v7/`)
    )
    expect([said, asked]).toEqual(["opened", [`/apis/ccompat/v7/config Basic ${btoa("ada:s@cret")}`]])
  })

  test("is not used when its level does not become BACKWARD, or when it is something else", async () => {
    const stubborn = await serving(
      () => Response.json({ compatibilityLevel: "NONE" }),
      (port) => open(`http://127.0.0.1:${port}`)
    )
    expect(stubborn).toEndWith("its compatibility level stays NONE and is not BACKWARD")
    const stranger = await serving(
      () => new Response("hello"),
      (port) => open(`http://127.0.0.1:${port}`)
    )
    expect(stranger).toEndWith("it answered what makes no sense (status 200)")
  })

  test("is asked again when it has a bad moment", async () => {
    let times = 0
    const said = await serving(
      () => (++times < 3 ? new Response("busy", { status: 503 }) : Response.json({ compatibilityLevel: "FULL" })),
      (port) => open(`http://127.0.0.1:${port}`)
    )
    expect([said, times]).toEqual(["opened", 3])
  })
})
