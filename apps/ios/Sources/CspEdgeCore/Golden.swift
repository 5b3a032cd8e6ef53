import Foundation

/// An opened artifact. `run` takes float32 [1, 3, H, W] and gives each output, in the order of the manifest's; it may be
/// called from any thread.
public protocol ModelSession: Sendable {
    func run(_ input: [Float]) throws -> [[Float]]
}

/// A runtime: Core ML or ExecuTorch in the app.
public protocol ModelRuntime: Sendable {
    /// Whether artifacts of this backend run here.
    func runs(_ artifact: Artifact) -> Bool

    /// Opens the artifact of this manifest that lies at `url`; any error means that it does not load.
    func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession

    /// Gives up what was kept on disk of other artifacts than this manifest's. For before any is opened.
    func keepOnly(_ manifest: Manifest) async throws
}

extension ModelRuntime {
    public func keepOnly(_ manifest: Manifest) async throws {}
}

/// What the check of `golden/` found.
public struct GoldenReport: Equatable, Sendable {
    /// The largest difference of any value, by artifact.
    public let largest: [String: Double]
    /// Artifacts that cannot run here.
    public let notRun: [String]
}

/// Replays golden/ (docs/bundle.md, steps 7 to 9): labels, the resize and crop of every image byte for byte, then every
/// artifact that `runtime` runs, within its tolerance.
///
/// Refusal: labels-invalid, image-*, preprocess-mismatch, artifact-refused, golden-mismatch. Decoding the image *files*
/// is the platform's work and not checked here.
public func replayGolden(_ bundle: ModelBundle, runtime: (any ModelRuntime)?) async throws -> GoldenReport {
    let manifest = bundle.manifest
    _ = try bundle.labels()
    let images = try manifest.goldenImages.map {
        (image: try bundle.goldenRGB($0), tensor: try bundle.goldenTensor($0))
    }
    for (golden, entry) in zip(images, manifest.goldenImages)
    where try manifest.preprocess.tensor(golden.image) != golden.tensor {
        throw Refusal(.preprocessMismatch, "the resize and crop of '\(entry.file)' do not give its tensor")
    }
    let inputs = images.map { manifest.preprocess.input($0.tensor) }
    var largest: [String: Double] = [:]
    var notRun: [String] = []
    for artifact in manifest.artifacts {
        if let runtime, runtime.runs(artifact) {
            largest[artifact.label] = try await replay(bundle, artifact, runtime, inputs)
        } else {
            notRun.append(artifact.label)
        }
    }
    return GoldenReport(largest: largest, notRun: notRun)
}

private func replay(
    _ bundle: ModelBundle, _ artifact: Artifact, _ runtime: any ModelRuntime, _ inputs: [[Float]]
) async throws -> Double {
    let outputs = bundle.manifest.outputs
    let golden = try zip(artifact.golden, outputs).map { try bundle.goldenRows($0, $1) }
    let url = try bundle.artifactURL(artifact)
    let answers: [[[Float]]]
    do {
        let session = try await runtime.open(artifact, of: bundle.manifest, at: url)
        answers = try inputs.map(session.run)
    } catch {  // runtimes throw what they like; whatever it is, the artifact does not run
        throw Refusal(.artifactRefused, "\(artifact.label) does not load or run: \(error)")
    }
    var largest = 0.0
    for (row, answer) in answers.enumerated() {
        for (index, output) in outputs.enumerated() {
            let off = index < answer.count ? difference(answer[index], golden[index][row]) : .nan
            let allowed = artifact.golden[index].maxAbs
            guard off <= allowed else {
                let what = "with a difference of \(off) in '\(output.name)'; \(allowed) is allowed"
                throw Refusal(.goldenMismatch, "\(artifact.label) answers golden image \(row) \(what)")
            }
            largest = max(largest, off)
        }
    }
    return largest
}

/// The largest absolute difference; NaN where a value is not finite or the sizes differ.
package func difference(_ answer: [Float], _ golden: [Float]) -> Double {
    guard answer.count == golden.count, answer.allSatisfy(\.isFinite) else { return .nan }
    return zip(answer, golden).map { abs(Double($0) - Double($1)) }.max() ?? 0
}
