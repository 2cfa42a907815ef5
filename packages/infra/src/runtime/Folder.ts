import { resolve } from "node:path"
import { Config } from "effect"
import { Flag } from "effect/cli"

/** Refuses an empty name, as an unset variable of a shell gives: the working directory would be filled with a shop's data. */
export const isNamed = Flag.filter(
  (folder: string) => folder !== "",
  () => "a folder"
)

/** The data folder of a shop, as an absolute path: `--data-dir`, else `MERKATO_DATA_DIR`, else `.merkato`. */
export const dataDir = (what: string) =>
  Flag.String("data-dir").pipe(
    Flag.withDescription(`${what} (default .merkato; MERKATO_DATA_DIR)`),
    Flag.withFallbackConfig(Config.String("MERKATO_DATA_DIR")),
    Flag.withDefault(".merkato"),
    isNamed,
    Flag.map((folder) => resolve(folder))
  )
