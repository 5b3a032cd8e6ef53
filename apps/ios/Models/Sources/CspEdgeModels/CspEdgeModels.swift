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

    /// The bundle in force, checked: once in the app's life, or again after a failure. KitError modelsMissing; Refusal.
    public static func open() async throws -> OpenedBundle { try await Opening.shared.bundle() }

    /// Opens the models and the best artifact that runs here.
    public static func classifier() async throws -> Classifier {
        try await Classifier(bundle: try await open().bundle, runtime: runtime)
    }
}

/// Sees to it that the models are opened by one call at a time: the others wait for its result.
private actor Opening {
    static let shared = Opening()
    private var task: Task<OpenedBundle, any Error>?

    func bundle() async throws -> OpenedBundle {
        let task = self.task ?? Task { try await Self.open() }
        self.task = task
        do {
            return try await task.value
        } catch {
            self.task = nil
            throw error
        }
    }

    private static func open() async throws -> OpenedBundle {
        guard let resources = Bundle.module.url(forResource: "Signed", withExtension: nil) else {
            throw KitError.modelsMissing("the folder Signed of CspEdgeModels is not in the app")
        }
        let support = try FileManager.default.url(
            for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let source = try ModelSource(
            resources: resources, support: support.appendingPathComponent("CspEdge", isDirectory: true))
        return try await source.open(runtime: CspEdgeModels.runtime) { try await $0.fetch() }
    }
}
