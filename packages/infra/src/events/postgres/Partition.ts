/** Partitions of a topic. A key's partition never changes, so neither may this number. */
export const partitionCount = 4

/** FNV-1a over UTF-16 code units: which partition a key belongs to. */
export const partitionOf = (key: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % partitionCount
}
