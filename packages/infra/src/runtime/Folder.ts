import { Flag } from "effect/cli"

/** Refuses an empty name, as an unset variable of a shell gives: the working directory would be filled with a shop's data. */
export const isNamed = Flag.filter(
  (folder: string) => folder !== "",
  () => "a folder"
)
