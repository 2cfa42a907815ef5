import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises"
import { dirname, join, relative } from "node:path"
import { isName, ObjectStore, ObjectStoreUnavailable, type StoredObject } from "./ObjectStore.ts"

/** What is being written lies here; no object has a name that begins so. */
const unfinished = ".unfinished"

const codeOf = (error: unknown) => (error instanceof Error && "code" in error ? error.code : undefined)

const absentIs =
  <A>(instead: A) =>
  (error: unknown): A => {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return instead
    throw error
  }

/** Writes a file that survives a power cut, and then gives it its name; no reader sees a part of it. */
const writeWhole = async (folder: string, content: Uint8Array, publish: (path: string) => Promise<void>) => {
  const staging = join(folder, unfinished)
  await mkdir(staging, { recursive: true })
  const path = join(staging, randomUUID())
  try {
    const file = await open(path, "wx")
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await publish(path)
  } finally {
    await rm(path, { force: true })
  }
}

/** Writes or replaces a file, for all readers at one moment. */
export const replaceFile = (folder: string, path: string, content: Uint8Array): Promise<void> =>
  writeWhole(folder, content, async (written) => {
    await mkdir(dirname(path), { recursive: true })
    await rename(written, path)
  })

const listFolder = async (folder: string): Promise<ReadonlyArray<string>> => {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(absentIs([]))
  return entries.filter((entry) => entry.isFile()).map((entry) => relative(folder, join(entry.parentPath, entry.name)))
}

/** The object store in a folder. */
export const layer = (folder: string) =>
  Layer.succeed(
    ObjectStore,
    (() => {
      const work = <A>(name: string, promise: () => Promise<A>) =>
        isName(name)
          ? Effect.tryPromise({ try: promise, catch: (cause) => new ObjectStoreUnavailable({ cause }) })
          : Effect.die(new Error(`No object can be called ${name}`))
      const pathOf = (name: string) => join(folder, name)

      const list = async (prefix: string): Promise<ReadonlyArray<StoredObject>> => {
        const top = prefix.slice(0, prefix.lastIndexOf("/") + 1)
        const below = await listFolder(join(folder, top))
        const names = below.map((name) => top + name).filter((name) => name.startsWith(prefix) && isName(name))
        const found = await Promise.all(
          names.map((name) => stat(pathOf(name)).then(({ size }) => [{ name, size }], absentIs([])))
        )
        return found.flat().toSorted((a, b) => (a.name < b.name ? -1 : 1))
      }

      const putNew = async (name: string, content: Uint8Array): Promise<boolean> => {
        let isNew = true
        await writeWhole(folder, content, async (written) => {
          await mkdir(dirname(pathOf(name)), { recursive: true })
          await link(written, pathOf(name)).catch((error: unknown) => {
            if (codeOf(error) !== "EEXIST") throw error
            isNew = false
          })
        })
        return isNew
      }

      return ObjectStore.of({
        list: (prefix) =>
          Effect.tryPromise({ try: () => list(prefix), catch: (cause) => new ObjectStoreUnavailable({ cause }) }),
        putNew: (name, content) => work(name, () => putNew(name, content)),
        get: (name) => work(name, () => readFile(pathOf(name)).catch(absentIs(undefined))),
        remove: (name) => work(name, () => rm(pathOf(name), { force: true })),
        localFile: (name) => work(name, () => stat(pathOf(name)).then(() => pathOf(name)))
      })
    })()
  )
