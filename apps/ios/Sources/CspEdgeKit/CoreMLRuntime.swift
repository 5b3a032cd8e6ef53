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
            try CoreMLSession(
                compiled: compiled, units: units, shape: manifest.inputShape, outputs: manifest.outputs.map(\.name))
        }
    }
#endif
