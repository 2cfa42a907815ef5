/** A source of doubles in [0, 1). */
export type Draw = () => number

/** mulberry32: small, fast, and the same on every machine. */
export const prng = (seed: number): Draw => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * A stream of a seed that is independent of its other streams: what one part of the world draws does not shift what
 * another draws, so a fault can be taken out of a run and the rest stays as much the same as it can.
 */
export const stream = (seed: number, name: string): Draw => {
  let hash = 0x811c9dc5 ^ seed
  for (let index = 0; index < name.length; index++) hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193)
  const draw = prng(hash ^ Math.imul(seed, 0x9e3779b1))
  draw()
  return draw
}

/** A whole number from `from` to `to`, both included. */
export const between = (draw: Draw, from: number, to: number): number => from + Math.floor(draw() * (to - from + 1))

/** One of the values. */
export const oneOf = <A>(draw: Draw, [first, ...rest]: readonly [A, ...ReadonlyArray<A>]): A => {
  const index = Math.floor(draw() * (rest.length + 1))
  return index === 0 ? first : (rest[index - 1] ?? first)
}
