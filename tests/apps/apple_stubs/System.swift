public struct FilePath: Sendable {
    public init(_ string: String) { fatalError() }
}
