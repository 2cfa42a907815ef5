/** Why the embedded Postgres did not come up, in words for the person who started it. */
import { Schema } from "effect"

/** Postgres could not be set up, started or taken over. `log` is what it said last, at most 20 lines. */
export class PostgresStartFailed extends Schema.TaggedError<PostgresStartFailed>()("PostgresStartFailed", {
  dataDir: Schema.String,
  reason: Schema.String,
  log: Schema.String
}) {
  override get message() {
    const said = this.log === "" ? "" : ` It said:\n${this.log}`
    return `The embedded Postgres in ${this.dataDir} could not be started: ${this.reason}.${said}`
  }
}

/** Started by root, Postgres runs as another user (it refuses to be root), who must be able to get to its data. */
export class DataFolderNotReachable extends Schema.TaggedError<DataFolderNotReachable>()("DataFolderNotReachable", {
  dataDir: Schema.String,
  /** The topmost folder that shuts that user out. */
  folder: Schema.String,
  user: Schema.String
}) {
  override get message() {
    return (
      `Postgres refuses to run as root and so runs as user ${this.user}, who may not enter ${this.folder} on the way ` +
      `to ${this.dataDir}: run "chmod o+x ${this.folder}", or choose a data folder elsewhere, such as /var/lib/merkato.`
    )
  }
}

/** The last lines of what a program said. */
export const lastLines = (text: string, count = 20): string => text.trimEnd().split("\n").slice(-count).join("\n")
