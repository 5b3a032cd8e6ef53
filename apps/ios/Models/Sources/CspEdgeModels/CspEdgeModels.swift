// What the models give is the kit's: whoever imports the models uses it without a second import.
@_exported import CspEdgeCore
@_exported import CspEdgeKit
import Foundation

#if canImport(CspEdgeExecuTorch)
    import CspEdgeExecuTorch
#endif

/// The models that came with this app, and the runtimes for them.
public enum CspEdgeModels {
    /// All runtimes of this app.
    public static var runtime: Runtimes {
        var runtimes: [any ModelRuntime] = []
        #if canImport(CoreML)
            runtimes.append(CoreMLRuntime())
        #endif
        #if canImport(CspEdgeExecuTorch)
            runtimes.append(ExecuTorchRuntime())
        #endif
        return Runtimes(runtimes)
    }

    /// The bundle in force, checked: once at the app's start. KitError modelsMissing; Refusal.
    public static func open() async throws -> OpenedBundle {
        let resources = Bundle.module.bundleURL.appendingPathComponent("Resources", isDirectory: true)
        let support = try FileManager.default.url(
            for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let source = try ModelSource(
            resources: resources, support: support.appendingPathComponent("CspEdge", isDirectory: true))
        return try await source.open(runtime: runtime) { try await $0.fetch() }
    }

    /// Opens the models and the best artifact that runs here.
    public static func classifier() async throws -> Classifier {
        try await Classifier(bundle: try await open().bundle, runtime: runtime)
    }
}
