import CspEdgeCore
import CspEdgeKit
import ExecuTorch
import Foundation

/// ExecuTorch programs (`.pte`) on XNNPACK, mapped into memory and not copied.
public struct ExecuTorchRuntime: ModelRuntime {
    public init() {}

    public func runs(_ artifact: Artifact) -> Bool { artifact.backend == "executorch" }

    public func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession {
        let module = Module(filePath: url.path, loadMode: .mmap)
        try module.load("forward")
        return ExecuTorchSession(module: Serialized(module), shape: manifest.inputShape)
    }
}

private struct ExecuTorchSession: ModelSession {
    /// ExecuTorch's Module is not safe to call from several threads.
    let module: Serialized<Module>
    let shape: [Int]

    func run(_ input: [Float]) throws -> [[Float]] {
        try module.use { module in
            let values: [Value] = try module.forward([Tensor<Float>(input, shape: shape)])
            return try values.enumerated().map { index, value in
                guard let tensor: Tensor<Float> = value.anyTensor?.asTensor() else {
                    throw KitError.runtimeDisagrees("its output \(index) is no tensor of float32")
                }
                return tensor.scalars()
            }
        }
    }
}
