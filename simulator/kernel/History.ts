/**
 * Everything that happened in a run, as one hash. The lines are kept until its end, since only then it is known whether
 * somebody has to read them: a run that broke once need not break again.
 */
export class History {
  private readonly hash = new Bun.CryptoHasher("sha256")
  private readonly kept: Array<string> = []

  add(line: string): void {
    this.hash.update(`${line}\n`)
    this.kept.push(line)
  }

  /** Adds what may differ between equal runs (a log line with a process id in it): to be read, not part of the hash. */
  remark(line: string): void {
    this.kept.push(line)
  }

  get lines(): ReadonlyArray<string> {
    return this.kept
  }

  /** Ends the history. */
  digest(): string {
    return this.hash.digest("hex")
  }
}
