/** Where the graph is asked: by POST, or by GET. */
export const path = "/graphql"
