import * as Frames from "./Frames.ts"

/** What a driver's batch comes to in a session that may have prepared its statement before. */
export interface Translated {
  readonly bytes: Buffer
  /** Answers to what the server is not asked again. */
  readonly known: Buffer
  /** What the session has prepared when this succeeds. */
  readonly parsed: string | undefined
  /** The driver did not ask for that: it has been told so before, by another session. */
  readonly unasked: boolean
}

const parseComplete = Buffer.from([Frames.char("1"), 0, 0, 0, 4])
const closeComplete = Buffer.from([Frames.char("3"), 0, 0, 0, 4])
const nothing = Buffer.alloc(0)

/** What a statement leaves in its session beyond the transaction, and would be missing where the next one runs. */
const outlivesTransaction =
  /\bpg_(try_)?advisory_lock|\bset_config\([^()]*\bfalse\s*\)|\bwith\s+hold\b|^\s*(set\s+(?!local\b|transaction\b|constraints\b)|(un)?listen\b|prepare\b|create\s+temp)/i

/** Statements that a session keeps; beyond that, it forgets all of them before the next run. */
const mostStatements = 1_000

/**
 * The statements that a real session has prepared, whoever of its simulated connections asked for them: each is parsed
 * once, not once per connection, as a pooler does that hands sessions out by the transaction. What runs is the same.
 */
export class Prepared {
  /** Names in the session, by text and types of parameters. */
  private readonly names = new Map<string, Buffer>()
  private named = 0

  /** Puts the session's names in place of the driver's, leaves out what it has done already, and adds what it has not. */
  translate(keyOf: (name: string) => string | undefined, messages: ReadonlyArray<Buffer>): Translated {
    const bytes: Array<Buffer> = []
    const known: Array<Buffer> = []
    let parsed: string | undefined
    let unasked = false
    const parse = (key: string) => {
      if (outlivesTransaction.test(key)) throw new Error(`This needs a session of its own: ${key.slice(0, 500)}`)
      parsed = key
      bytes.push(Frames.message(Frames.parse, this.nameOf(key), Buffer.from(key, "latin1")))
    }
    for (const message of messages) {
      switch (message[0]) {
        case Frames.close:
          known.push(closeComplete)
          break
        case Frames.parse: {
          const key = message.toString("latin1", message.indexOf(0, 5) + 1)
          if (this.names.has(key)) known.push(parseComplete)
          else parse(key)
          break
        }
        case Frames.bind: {
          const portal = message.indexOf(0, 5) + 1
          const end = message.indexOf(0, portal)
          const key = keyOf(message.toString("latin1", portal, end))
          if (key === undefined) throw new Error("The driver binds what it has not prepared")
          if (!this.names.has(key)) {
            parse(key)
            unasked = true
          }
          bytes.push(
            Frames.message(Frames.bind, message.subarray(5, portal), this.nameOf(key), message.subarray(end + 1))
          )
          break
        }
        default:
          bytes.push(message)
      }
    }
    return {
      bytes: Buffer.concat(bytes),
      known: known.length === 0 ? nothing : Buffer.concat(known),
      parsed,
      unasked
    }
  }

  /** The reply as the driver expects it; of what was parsed, the session keeps what the server took. */
  answered({ known, parsed, unasked }: Translated, reply: Buffer): Buffer {
    const taken = reply[0] === parseComplete[0]
    if (parsed !== undefined && !taken) this.names.delete(parsed)
    const expected = unasked && taken ? reply.subarray(parseComplete.length) : reply
    return known.length === 0 ? expected : Buffer.concat([known, expected])
  }

  /** Whether it is time to forget them all (DEALLOCATE ALL). */
  get full(): boolean {
    return this.names.size > mostStatements
  }

  forget(): void {
    this.names.clear()
  }

  private nameOf(key: string): Buffer {
    const name = this.names.get(key) ?? Buffer.from(`s${++this.named}\0`)
    this.names.set(key, name)
    return name
  }
}
