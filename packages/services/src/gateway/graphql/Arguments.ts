/** Arguments without those that are null: in a query, a null says as much as nothing. */
export const nullsLeftOut = (value: unknown): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(
        Object.entries(value)
          .filter(([, each]) => each !== null)
          .map(([name, each]) => [name, nullsLeftOut(each)])
      )
    : value
