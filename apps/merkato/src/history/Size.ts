/** How much history there is to be, and when it happened. */
export interface Size {
  readonly products: number
  readonly customers: number
  readonly orders: number
}

/** A history that is being written: its size, and its two ends. */
export interface Plan extends Size {
  readonly begins: Date
  readonly ends: Date
}

/** Rows that one transaction writes the consequences of. */
export interface Batch {
  readonly first: number
  /** The one after the last. */
  readonly beyond: number
}

/** Orders are written by two at a time; each has shelves of its own, so that neither waits for the other's stock. */
export const lanes = 2
