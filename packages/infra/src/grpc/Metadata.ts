import { Metadata } from "@grpc/grpc-js"

/** The first value of each key; those that are text. */
export const textsOf = (metadata: Metadata): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(metadata.getMap()).flatMap(([key, value]) => (typeof value === "string" ? [[key, value]] : []))
  )

export const toMetadata = (texts: Readonly<Record<string, string>>): Metadata => {
  const metadata = new Metadata()
  for (const [key, value] of Object.entries(texts)) metadata.set(key, value)
  return metadata
}
