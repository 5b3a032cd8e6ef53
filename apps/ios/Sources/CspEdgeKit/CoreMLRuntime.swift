#if canImport(CoreML)
    import CoreML
    import CspEdgeCore
    import Foundation

    /// Core ML packages (`.mlpackage`), compiled once on the device and kept by their digest.
    public struct CoreMLRuntime: ModelRuntime {
        private let caches: URL
        private let units: MLComputeUnits

        /// caches: where compiled models are kept; the system may empty it. units: what Core ML may run on.
        public init(
            caches: URL = URL.cachesDirectory.appendingPathComponent("CspEdge", isDirectory: true),
            units: MLComputeUnits = .all
        ) {
            self.caches = caches
            self.units = units
        }

        public func runs(_ artifact: Artifact) -> Bool { artifact.backend == "coreml" }

        public func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession {
            let cache = cache(manifest)
            let compiled = try await cache.folder(artifact.digest) { try await MLModel.compileModel(at: url) }
            do {
                return try session(compiled, manifest)
            } catch {  // what was kept may be cut off; once more from the package, whose bytes were just checked
                try await cache.remove(artifact.digest)
                let again = try await cache.folder(artifact.digest) { try await MLModel.compileModel(at: url) }
                return try session(again, manifest)
            }
        }

        public func keepOnly(_ manifest: Manifest) async throws {
            try await cache(manifest).removeAll(but: Set(manifest.artifacts.map(\.digest)))
        }

        private func cache(_ manifest: Manifest) -> ArtifactCache {
            ArtifactCache(
                root: caches.appendingPathComponent(manifest.name, isDirectory: true), suffix: ".mlmodelc")
        }

        private func session(_ compiled: URL, _ manifest: Manifest) throws -> CoreMLSession {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            let model = try MLModel(contentsOf: compiled, configuration: configuration)
            return CoreMLSession(model: Serialized(model), shape: manifest.inputShape, outputs: manifest.outputs)
        }
    }

    private struct CoreMLSession: ModelSession {
        /// Core ML asks for one thread at a time.
        let model: Serialized<MLModel>
        let shape: [Int]
        let outputs: [Output]

        func run(_ input: [Float]) throws -> [[Float]] {
            try model.use { model in
                let image = MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: input, shape: shape))
                let answer = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": image]))
                return try outputs.map { output in
                    guard let values = answer.featureValue(for: output.name)?.multiArrayValue else {
                        throw KitError.runtimeDisagrees("it has no output '\(output.name)'")
                    }
                    return Array(MLShapedArray<Float>(converting: values).scalars)
                }
            }
        }
    }
#endif
