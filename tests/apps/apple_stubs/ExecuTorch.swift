// https://github.com/pytorch/executorch, extension/apple/ExecuTorch/Exported
@_exported import Foundation

public enum ModuleLoadMode: Int, Sendable {
    case file, mmap, mmapUseMlock, mmapUseMlockIgnoreErrors
}

public protocol Scalar {}
extension Float: Scalar {}

public class AnyTensor: NSObject {
    public func asTensor<T: Scalar>() -> Tensor<T>? { fatalError() }
}

public final class Tensor<T: Scalar> {
    public init(_ scalars: [T], shape: [Int] = []) { fatalError() }
    public func scalars() -> [T] { fatalError() }
}

public protocol ValueConvertible {}
extension Tensor: ValueConvertible {}

public class Value: NSObject {
    public var anyTensor: AnyTensor? { fatalError() }
}

public class Module: NSObject {
    public init(filePath: String, loadMode: ModuleLoadMode) { fatalError() }
    public func load(_ method: String) throws { fatalError() }
    public func forward(_ inputs: [ValueConvertible]) throws -> [Value] { fatalError() }
}
