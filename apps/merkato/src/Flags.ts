/** Flags that several commands have. */
import { Config, Duration, Option } from "effect"
import { Flag } from "effect/cli"
import { Topic } from "@merkato/domain/kernel/Event"
import { isDay } from "@merkato/domain/kernel/Day"
import { deadLetterTopic } from "@merkato/infra/events/EventBus"
import * as Folder from "@merkato/infra/runtime/Folder"

export const dataDir = Folder.dataDir("The shop's folder, with its database and keys")

/** The base URL of a shop, without a slash at its end. */
const baseUrl = (text: string): Option.Option<string> =>
  URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) ? Option.some(text.replace(/\/+$/, "")) : Option.none()

export const url = Flag.String("url").pipe(
  Flag.withDescription("Where the shop is (default http://localhost:8080)"),
  Flag.withDefault("http://localhost:8080"),
  Flag.filterMap(baseUrl, () => "the address of a shop, such as http://localhost:8080")
)

/** A whole number within limits, both inclusive. */
export const int = (name: string, minimum: number, maximum: number, description: string) =>
  Flag.Int(name).pipe(
    Flag.withDescription(description),
    Flag.filter(
      (value) => value >= minimum && value <= maximum,
      () => `a whole number from ${minimum} to ${maximum}`
    )
  )

export const port = int("port", 1, 65_535, "The shop's port (default 8080; MERKATO_HTTP_PORT)").pipe(
  Flag.withFallbackConfig(Config.Int("MERKATO_HTTP_PORT")),
  Flag.withDefault(8080)
)

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Reads `500ms`, `10s`, `5m`, `12h`, `30d`. */
export const parseDuration = (text: string): Option.Option<Duration.Duration> => {
  const [, amount, unit = ""] = /^(\d{1,9})(ms|s|m|h|d)$/.exec(text) ?? []
  const each = unitMs[unit]
  return amount === undefined || each === undefined
    ? Option.none()
    : Option.some(Duration.millis(Number(amount) * each))
}

/** A time such as 10s or 12h, of at least `minimum` and at most `maximum`. */
export const duration = (name: string, minimum: Duration.Duration, maximum: Duration.Duration, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.filterMap(
      (text) => Option.filter(parseDuration(text), Duration.between({ minimum, maximum })),
      () => `a time such as 10s, 5m or 12h, from ${Duration.format(minimum)} to ${Duration.format(maximum)}`
    )
  )

const topics: ReadonlyArray<string> = Topic.literals

export const topic = Flag.String("topic").pipe(
  Flag.withMetavar("topic"),
  Flag.withDescription(`One of ${topics.join(", ")}`),
  Flag.filter(
    (name) => topics.includes(name),
    () => topics.join(" | ")
  )
)

/** Topics, and their dead letters; none given stands for all topics. */
export const topicsOrDeadLetters = Flag.String("topic").pipe(
  Flag.withMetavar("topic"),
  Flag.withDescription(`May be repeated; all unless given: ${topics.join(", ")}, and <topic>.dlq`),
  Flag.filter(
    (name) => topics.includes(name) || topics.some((topic) => deadLetterTopic(topic) === name),
    () => `${topics.join(" | ")}, or <topic>.dlq`
  ),
  Flag.atLeast(0),
  Flag.map((given) => (given.length === 0 ? topics : given))
)

export const json = Flag.Boolean("json").pipe(Flag.withDescription("One JSON object a line"), Flag.withDefault(false))

/** A day of the calendar. */
export const day = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("day"),
    Flag.withDescription(description),
    Flag.filter(isDay, () => "a day such as 2026-01-31")
  )
