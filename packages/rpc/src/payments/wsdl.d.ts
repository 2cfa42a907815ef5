declare module "*.wsdl" {
  const text: string
  export default text
}
