import { main } from "./Cli.ts"
import { merkato } from "./Merkato.ts"

main(merkato)
