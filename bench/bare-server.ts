// What the machine can do at most: Bun.serve that answers every request with the same bytes.
const body = process.argv[2] ?? ""
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: () => new Response(body, { headers: { "content-type": "application/json" } })
})
console.log(server.port)
