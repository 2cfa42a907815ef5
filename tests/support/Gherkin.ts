import { readFileSync } from "node:fs"
import { CucumberExpression, ParameterTypeRegistry } from "@cucumber/cucumber-expressions"
import { generateMessages } from "@cucumber/gherkin"
import { IdGenerator, type Pickle, type PickleStep, SourceMediaType } from "@cucumber/messages"

/** The table below a step: a record a row, by the names in its first one. */
export type Table = ReadonlyArray<Readonly<Record<string, string>>>

interface Meaning<World> {
  readonly expression: CucumberExpression
  /** Does the step in the world of its scenario, with the values that its words name, and its table. */
  readonly act: (world: World, values: ReadonlyArray<unknown>) => Promise<unknown>
}

/** Scenarios of a feature file, an outline being one for each of its examples. */
export const scenariosIn = (path: string): ReadonlyArray<Pickle> =>
  generateMessages(readFileSync(path, "utf8"), path, SourceMediaType.TEXT_X_CUCUMBER_GHERKIN_PLAIN, {
    includePickles: true,
    newId: IdGenerator.incrementing()
  }).flatMap(({ pickle, parseError }) => {
    if (parseError !== undefined) throw new Error(parseError.message)
    return pickle === undefined ? [] : [pickle]
  })

const tableOf = ({ argument }: PickleStep): ReadonlyArray<Table> => {
  const [names = [], ...rows] = (argument?.dataTable?.rows ?? []).map(({ cells }) => cells.map(({ value }) => value))
  return names.length === 0
    ? []
    : [rows.map((row) => Object.fromEntries(names.map((name, nth) => [name, row[nth] ?? ""])))]
}

/** What the sentences of features mean. A sentence that means nothing, or two things, is an error. */
export class Steps<World> {
  private readonly meanings: Array<Meaning<World>> = []
  private readonly registry = new ParameterTypeRegistry()
  private readonly used = new Set<string>()

  /** `{word}`, `{int}`, `{float}` and `{string}` in the sentence are handed to the act, and after them the table. */
  define<Values extends ReadonlyArray<unknown>>(
    sentence: string,
    act: (world: World, ...values: Values) => Promise<unknown>
  ): void {
    this.meanings.push({
      expression: new CucumberExpression(sentence, this.registry),
      act: (world, values) => Reflect.apply(act, undefined, [world, ...values])
    })
  }

  async run(world: World, { steps }: Pickle): Promise<void> {
    for (const step of steps) {
      const found = this.meanings.flatMap(({ expression, act }) => {
        const values = expression.match(step.text)
        return values === null ? [] : [{ expression, act, values: values.map((value) => value.getValue(undefined)) }]
      })
      const [meant, another] = found
      if (meant === undefined) throw new Error(`"${step.text}" means nothing`)
      if (another !== undefined) throw new Error(`"${step.text}" means two things`)
      this.used.add(meant.expression.source)
      try {
        await meant.act(world, [...meant.values, ...tableOf(step)])
      } catch (error) {
        throw new Error(`at "${step.text}": ${error instanceof Error ? error.message : String(error)}`, {
          cause: error
        })
      }
    }
  }

  /** Sentences that no scenario has said. */
  get unused(): ReadonlyArray<string> {
    return this.meanings.map(({ expression }) => expression.source).filter((source) => !this.used.has(source))
  }
}
