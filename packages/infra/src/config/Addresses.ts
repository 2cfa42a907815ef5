/** Where a server listens. */
export interface Address {
  readonly host: string
  readonly port: number
}

/**
 * Reads `host:port`, several separated by commas; undefined where one is something else. A port may be left out where there is
 * a usual one. An IPv6 address stands in brackets.
 */
export const parse = (text: string, usualPort?: number): ReadonlyArray<Address> | undefined => {
  const parts = text.split(",")
  const addresses = parts.flatMap((part) => {
    const [, host, given] = /^\s*([A-Za-z0-9._-]+|\[[0-9a-f:]+\])(?::(\d{1,5}))?\s*$/i.exec(part) ?? []
    const port = given === undefined ? usualPort : Number(given)
    return host === undefined || port === undefined || port > 65_535
      ? []
      : [{ host: host.replaceAll(/[[\]]/g, ""), port }]
  })
  return addresses.length === parts.length ? addresses : undefined
}
