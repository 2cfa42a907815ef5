import { Effect } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"

const links: ReadonlyArray<readonly [string, string]> = [
  ["/docs", "API documentation"],
  ["/openapi.json", "OpenAPI document"],
  ["/api/v1/products", "Products"],
  ["/api/v1/categories", "Categories"],
  ["/healthz", "Health"],
  ["/readyz", "Readiness"],
  ["/metrics", "Metrics"]
]

const page = (contexts: ReadonlyArray<string>) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Merkato</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color: #1d2b1f }
  h1 { margin-bottom: 0 } a { color: #1f6b35 } code { background: #eef3ee; padding: .1rem .3rem; border-radius: .2rem }
  ul { padding-left: 1.2rem }
</style>
<h1>Merkato</h1>
<p>A grocery shop. This is its front door for programs; the API is at <code>/api/v1</code>.</p>
<ul>${links.map(([href, text]) => `<li><a href="${href}">${text}</a> <code>${href}</code></li>`).join("")}</ul>
<p>Running here: ${contexts.map((context) => `<code>${context}</code>`).join(" ")}</p>
</html>
`

const policy =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** The page at `/`: what runs here, and where the rest is. */
export const home = (contexts: ReadonlyArray<string>) =>
  HttpRouter.add(
    "GET",
    "/",
    Effect.succeed(
      HttpServerResponse.html(page(contexts)).pipe(HttpServerResponse.setHeader("content-security-policy", policy))
    )
  )
