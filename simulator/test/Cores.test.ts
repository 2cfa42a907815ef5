import { describe, expect, test } from "bun:test"
import { ofWorkers, parse } from "../Cores.ts"

describe("the cores of workers", () => {
  test("are read as Linux lists them", () => {
    expect(parse("\t0-2,5\n")).toEqual([0, 1, 2, 5])
    expect(parse("3")).toEqual([3])
    expect(parse("")).toEqual([])
  })

  test("are shared out where there is a worker for each, and left open where there is room, or only one", () => {
    expect(ofWorkers(2, [4, 6])).toEqual([4, 6])
    expect(ofWorkers(3, [4, 6])).toEqual([4, 6, 4])
    expect(ofWorkers(1, [4, 6])).toEqual([undefined])
    expect(ofWorkers(1, [4])).toEqual([undefined])
    expect(ofWorkers(2, [])).toEqual([undefined, undefined])
  })
})
