import CspEdgeCore
import CspEdgeKit
import CspEdgeModels
import Foundation
import Observation

/// What went wrong, in words for a screen.
struct Failure: Equatable {
    let message: String
    let advice: String?

    init(_ error: any Error) {
        message = error.localizedDescription
        advice = (error as? any LocalizedError)?.recoverySuggestion
    }
}

/// The state behind all screens.
@MainActor
@Observable
final class SampleModel {
    enum Phase: Equatable {
        case loading, ready
        case failed(Failure)
    }

    private(set) var phase = Phase.loading
    /// Artifacts that run here, and the one that is open.
    private(set) var artifacts: [Artifact] = []
    private(set) var artifact: Artifact?
    private(set) var version: Version?
    /// Why a newer bundle was not taken.
    private(set) var notTaken: String?
    private(set) var answer: Answer?
    private(set) var latency = Latency()
    private(set) var rows: [SelfTestRow] = []
    private(set) var isWorking = false
    /// What went wrong with the last image or self-test.
    private(set) var failure: Failure?
    private var classifier: Classifier?
    private var bundle: ModelBundle?

    /// Opens the models: when the app starts, and again where that failed.
    func start() async {
        guard bundle == nil else { return }
        phase = .loading
        do {
            let opened = try await CspEdgeModels.open()
            try await open(opened.bundle, artifact: nil)
            bundle = opened.bundle
            notTaken = opened.notTaken
            version = opened.bundle.manifest.version
            artifacts = Classifier.choices(opened.bundle.manifest, CspEdgeModels.runtime)
            phase = .ready
        } catch {
            phase = .failed(Failure(error))
        }
    }

    /// Opens another artifact of the bundle; what was measured with the one before is forgotten.
    func choose(_ label: String) async {
        guard let bundle, label != artifact?.label else { return }
        await work { try await self.open(bundle, artifact: label) }
    }

    func classify(_ file: Data) async {
        guard let classifier else { return }
        await work {
            let answer = try await classifier.classify(file)
            guard classifier === self.classifier else { return }  // another artifact was chosen meanwhile
            self.answer = answer
            self.latency.add(answer.timing)
        }
    }

    func selfTest() async {
        guard let classifier else { return }
        rows = []
        await work {
            let rows = try await classifier.selfTest()
            if classifier === self.classifier { self.rows = rows }
        }
    }

    /// For what fails before there is an image.
    func report(_ error: any Error) { failure = Failure(error) }

    private func open(_ bundle: ModelBundle, artifact label: String?) async throws {
        let opened = try await Classifier(bundle: bundle, runtime: CspEdgeModels.runtime, artifact: label)
        classifier = opened
        artifact = opened.artifact
        answer = nil
        latency = Latency()
        rows = []
    }

    private func work(_ body: @MainActor () async throws -> Void) async {
        isWorking = true
        failure = nil
        defer { isWorking = false }
        do {
            try await body()
        } catch {
            failure = Failure(error)
        }
    }
}
