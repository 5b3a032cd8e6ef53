import Foundation

/// A value that one thread at a time uses: for runtimes whose models are not safe to call from several.
///
/// `@unchecked Sendable`: neither Core ML's nor ExecuTorch's model is Sendable, and the compiler cannot see that every
/// use goes through the lock. The value is given away on the way in and never leaves.
public final class Serialized<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private let value: Value

    public init(_ value: sending Value) {
        self.value = value
    }

    /// Runs `body` alone; it must not let the value escape.
    public func use<Result>(_ body: (Value) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(value)
    }
}
