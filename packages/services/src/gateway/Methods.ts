import { FindMyWay } from "effect/http"
import { HttpApi } from "effect/http-api"
import { path as graph } from "@merkato/rpc/graphql/Address"
import { Api } from "@merkato/rpc/rest/Api"

/** What answers to GET here besides the API. */
const pages = ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/ws/orders", "/sse/flash-sales"]

const isPath = (path: string): path is `/${string}` => path.startsWith("/")

/** Every address of the edge with the methods it answers to, found in the same way as by the router. */
const addresses = (() => {
  const methods = new Map<string, Set<string>>(pages.map((path) => [path, new Set(["GET"])]))
  methods.set(graph, new Set(["GET", "POST"]))
  HttpApi.reflect(Api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint: { path, method } }) => {
      methods.set(path, (methods.get(path) ?? new Set()).add(method))
    }
  })
  const router = FindMyWay.make<ReadonlySet<string>>()
  for (const [path, known] of methods) {
    if (isPath(path)) router.on("*", path, known.has("GET") ? known.add("HEAD") : known)
  }
  return router
})()

/** The methods that an address answers to: what Allow says in a 405. Empty where there is nothing. */
export const methodsAt = (url: string): ReadonlyArray<string> => [...(addresses.find("*", url)?.handler ?? [])]
