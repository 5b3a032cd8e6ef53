import CspEdgeCore
import Foundation

/// One run of one artifact, as every native runner of cspedge reports it (cspedge/devices/line.py). Milliseconds, bytes.
public struct Line: Encodable, Equatable, Sendable {
    public struct Runtime: Encodable, Equatable, Sendable {
        public let name: String
        public let version: String

        public init(name: String, version: String) {
            self.name = name
            self.version = version
        }
    }

    let artifact: String
    let sha256: String
    let runtime: Runtime
    /// What Core ML means to compute on, and "CoreML" where it does not tell.
    let delegates: [String]
    /// 0: Core ML takes no number of threads.
    let threads = 0
    let images: Int
    let tensorsSha256: String
    /// nil where outputs were not asked for.
    let outputsSha256: String?
    let loadMs: Double
    let firstMs: Double
    let samplesMs: [Double]
    let peakRssBytes: Int

    private enum CodingKeys: String, CodingKey {
        case artifact, sha256, runtime, delegates, threads, images
        case tensorsSha256 = "tensors_sha256"
        case outputsSha256 = "outputs_sha256"
        case loadMs = "load_ms"
        case firstMs = "first_ms"
        case samplesMs = "samples_ms"
        case peakRssBytes = "peak_rss_bytes"
    }

    // by hand: the synthesised one leaves out what is nil, and every key is there in every line
    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(artifact, forKey: .artifact)
        try fields.encode(sha256, forKey: .sha256)
        try fields.encode(runtime, forKey: .runtime)
        try fields.encode(delegates, forKey: .delegates)
        try fields.encode(threads, forKey: .threads)
        try fields.encode(images, forKey: .images)
        try fields.encode(tensorsSha256, forKey: .tensorsSha256)
        try fields.encode(outputsSha256, forKey: .outputsSha256)
        try fields.encode(loadMs, forKey: .loadMs)
        try fields.encode(firstMs, forKey: .firstMs)
        try fields.encode(samplesMs, forKey: .samplesMs)
        try fields.encode(peakRssBytes, forKey: .peakRssBytes)
    }
}

/// What a device says of itself.
public struct DeviceFacts: Codable, Equatable, Sendable {
    /// `iOS` or `macOS`.
    public let platform: String
    /// Apple's identifier, `iPhone16,1` or `Mac15,3`.
    public let model: String
    public let machine: String
    public let system: String

    public init(platform: String, model: String, machine: String, system: String) {
        self.platform = platform
        self.model = model
        self.machine = machine
        self.system = system
    }
}

/// What `results.json` says of the device: its facts, and the state that it was in.
struct DeviceState: Encodable, Equatable, Sendable {
    let uri: String
    let facts: DeviceFacts
    let units: ComputeUnits
    let lowPowerMode: Bool
    let thermalBefore: String
    let thermalAfter: String

    private enum CodingKeys: String, CodingKey {
        case uri, facts, units
        case lowPowerMode = "low_power_mode"
        case thermalBefore = "thermal_before"
        case thermalAfter = "thermal_after"
    }
}

/// `results.json`: what came of a run. `cspedge report --add` takes it in.
struct Results: Encodable, Equatable, Sendable {
    struct Artifact: Encodable, Equatable, Sendable {
        let artifact: String
        /// What compiling the package took; an app does it once, after it was installed.
        let compileMs: Double
        /// How many operations Core ML means to run on each of its devices; empty where it does not tell.
        let operations: [String: Int]
        /// All images, with their outputs in `<artifact>.f32` beside this file.
        let validated: Line
        /// The first image, a line for each round.
        let timed: [Line]

        private enum CodingKeys: String, CodingKey {
            case artifact, operations, validated, timed
            case compileMs = "compile_ms"
        }
    }

    struct Failure: Encodable, Equatable, Sendable {
        let artifact: String
        let reason: String
    }

    let schema = 1
    let runner = runnerVersion
    let runSha256: String
    let device: DeviceState
    let artifacts: [Artifact]
    let failures: [Failure]

    private enum CodingKeys: String, CodingKey {
        case schema, runner, device, artifacts, failures
        case runSha256 = "run_sha256"
    }

    static let fileName = "results.json"

    /// Sorted keys; throws for NaN and infinities, which are no JSON.
    func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return try encoder.encode(self)
        } catch {
            throw RunnerError("a figure of this run is not a number (\(error)); run it again")
        }
    }
}
