/** Asks until the answer is as wanted: events need a moment. */
export const until = async <A>(
  ask: () => Promise<A>,
  wanted: (answer: A) => boolean,
  withinMs = 40_000
): Promise<A> => {
  const deadline = Date.now() + withinMs
  for (;;) {
    const answer = await ask()
    if (wanted(answer)) return answer
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(answer)}`)
    await Bun.sleep(25)
  }
}
