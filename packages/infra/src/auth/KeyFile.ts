import { chmodSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/**
 * The text of a file of keys in the data folder; made on first start (mode 0600) when there is none. Processes that start
 * together get the same keys: the one that links its draft first.
 */
export const readOrMake = async (dataDir: string, name: string, make: () => Promise<string>): Promise<string> => {
  mkdirSync(dataDir, { recursive: true })
  const file = join(dataDir, name)
  const present = readIfThere(file)
  if (present !== undefined) return present
  const text = await make()
  const draft = `${file}.${process.pid}`
  writeFileSync(draft, text, { mode: 0o600 })
  chmodSync(draft, 0o600)
  try {
    linkSync(draft, file)
  } catch (cause) {
    // Another process of the shop was first: its keys are the keys.
    if (readIfThere(file) === undefined) throw cause
  } finally {
    unlinkSync(draft)
  }
  return readFileSync(file, "utf8")
}

const readIfThere = (file: string): string | undefined => {
  try {
    return readFileSync(file, "utf8")
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined
    throw cause
  }
}
