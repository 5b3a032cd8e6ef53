import CspEdgeCore
import Foundation

/// What a model says about an image.
public struct Answer: Equatable, Sendable {
    /// The likeliest classes, likeliest first, with probabilities; empty where the model gives features, not logits.
    public let top: [Ranked]
    /// Every output's values, as the runtime gave them, by the output's name.
    public let outputs: [String: [Float]]
    public let timing: Timing
}

/// One artifact of a bundle, opened: images in, labels with probabilities out. Calls from any thread; one runs at a time.
public actor Classifier {
    public nonisolated let bundle: ModelBundle
    public nonisolated let artifact: Artifact
    private let session: any ModelSession
    private let labels: [String]

    /// Opens an artifact of the bundle: the one of this label, or the first of the best verdict that runs here.
    ///
    /// KitError nothingRuns, artifactUnknown; Refusal file-changed, labels-invalid; whatever the runtime throws.
    public init(bundle: ModelBundle, runtime: any ModelRuntime, artifact label: String? = nil) async throws {
        let choices = Self.choices(bundle.manifest, runtime)
        guard let first = choices.first else {
            throw KitError.nothingRuns(bundle.manifest.artifacts.map(\.label))
        }
        let chosen = label == nil ? first : choices.first { $0.label == label }
        guard let chosen else { throw KitError.artifactUnknown(label ?? "", known: choices.map(\.label)) }
        self.bundle = bundle
        artifact = chosen
        labels = try bundle.labels()
        session = try await runtime.open(chosen, of: bundle.manifest, at: try bundle.artifactURL(chosen))
    }

    /// The artifacts that run here, the best verdict first.
    public static func choices(_ manifest: Manifest, _ runtime: any ModelRuntime) -> [Artifact] {
        let verdicts = ["ship", "caution", "do-not-ship"]
        let running = manifest.artifacts.filter(runtime.runs)
        return verdicts.flatMap { verdict in running.filter { $0.verdict == verdict } }
    }

    /// Resize, crop, model, softmax. Refusal image-empty, image-too-large; UsageError for logits that are not finite.
    public func classify(_ image: RGBImage, count: Int = 5) throws -> Answer {
        let clock = ContinuousClock()
        let started = clock.now
        let preprocess = bundle.manifest.preprocess
        let input = preprocess.input(try preprocess.tensor(image))
        let prepared = clock.now
        let values = try run(input)
        let timing = Timing(preprocess: started.duration(to: prepared), model: prepared.duration(to: clock.now))
        let outputs = bundle.manifest.outputs
        let logits = zip(outputs, values).first { output, _ in output.values == "logits" }?.1
        return Answer(
            top: try logits.map { try topK($0, labels: labels, count: min(count, $0.count)) } ?? [],
            outputs: Dictionary(uniqueKeysWithValues: zip(outputs.map(\.name), values)),
            timing: timing)
    }

    /// The outputs for an input, in the manifest's order and of its sizes.
    func run(_ input: [Float]) throws -> [[Float]] {
        let values = try session.run(input)
        let outputs = bundle.manifest.outputs
        guard values.map(\.count) == outputs.map(\.size) else {
            let wanted = outputs.map { "\($0.size) of '\($0.name)'" }.joined(separator: ", ")
            throw KitError.runtimeDisagrees("it gives \(values.map(\.count)) values, and \(wanted) are expected")
        }
        return values
    }
}
