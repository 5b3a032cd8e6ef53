import CspEdgeCore
import Foundation

/// The version of this runner, which results repeat: `cspedge report --add` takes those of the version it knows.
public let runnerVersion = "1"

/// `run.json`: what cspedge asks a device to do, with the digest of everything that goes into it.
public struct RunDescription: Codable, Equatable, Sendable {
    public struct Tensors: Codable, Equatable, Sendable {
        /// uint8 [images, 3, H, W], RGB: the pipeline's pixels, of which 1/255 each is the model's input.
        public let file: String
        public let sha256: String
        public let images: Int
        /// Of one image, [3, H, W].
        public let shape: [Int]

        /// Bytes of one image.
        public var size: Int { shape.reduce(1, *) }
    }

    public struct File: Codable, Equatable, Sendable {
        public let path: String
        public let sha256: String
    }

    public struct Output: Codable, Equatable, Sendable {
        public let name: String
        /// Of one image.
        public let shape: [Int]

        public var size: Int { shape.reduce(1, *) }
    }

    /// A Core ML package. `sha256` is cspedge's digest of the folder, over its files in their order here.
    public struct Artifact: Codable, Equatable, Sendable {
        public let artifact: String
        public let path: String
        public let sha256: String
        public let files: [File]
        public let outputs: [Output]

        /// `artifact` as a file's name.
        public var fileName: String { artifact.replacingOccurrences(of: "/", with: "-") }
    }

    public let schema: Int
    public let runner: String
    public let device: String
    public let units: ComputeUnits
    public let tensors: Tensors
    public let artifacts: [Artifact]
    /// Untimed inferences before each round's, the first one included.
    public let warmup: Int
    /// 0: the artifacts are validated and not timed.
    public let rounds: Int
    public let perRound: Int

    private enum CodingKeys: String, CodingKey {
        case schema, runner, device, units, tensors, artifacts, warmup, rounds
        case perRound = "per_round"
    }
}

/// What Core ML may run on, in its own words.
public enum ComputeUnits: String, Codable, Sendable {
    case all, cpuOnly, cpuAndGPU, cpuAndNeuralEngine
}

/// Why a run cannot be made, in one sentence.
public struct RunnerError: LocalizedError, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public var errorDescription: String? { description }

    public init(_ description: String) { self.description = description }
}

/// A folder with a `run.json` whose files are all there with their digests.
public struct Job: Sendable {
    public let folder: URL
    public let description: RunDescription
    /// SHA-256 of `run.json`.
    public let digest: String

    static let fileName = "run.json"
    let text: Data
    private let pixels: Data

    /// Throws RunnerError for a description of another version, and for a file that is missing, changed or outside.
    public init(_ folder: URL) throws {
        self.folder = folder
        let place = folder.appendingPathComponent(Self.fileName)
        guard let data = try? Data(contentsOf: place) else {
            throw RunnerError("there is no run.json in '\(folder.path)'; give the folder that cspedge wrote")
        }
        do {
            description = try JSONDecoder().decode(RunDescription.self, from: data)
        } catch {
            throw RunnerError("run.json is not one that this runner knows (\(error)); write it again with --emit")
        }
        digest = sha256(data)
        text = data
        guard description.schema == 1, description.runner == runnerVersion else {
            throw RunnerError(
                "run.json has schema \(description.schema) for runner \(description.runner), and this is runner "
                    + "\(runnerVersion), which reads schema 1; write it again with --emit")
        }
        let tensors = description.tensors
        try Self.check(tensors.file, tensors.sha256, in: folder)
        pixels = try Data(contentsOf: folder.appendingPathComponent(tensors.file), options: .mappedIfSafe)
        guard tensors.images > 0, tensors.shape.allSatisfy({ $0 > 0 }), pixels.count == tensors.images * tensors.size
        else {
            throw RunnerError("'\(tensors.file)' has \(pixels.count) bytes, not \(tensors.images) x \(tensors.size)")
        }
        for artifact in description.artifacts { try Self.check(artifact, in: folder) }
    }

    /// An image as the model takes it: float32 [3, H, W] in [0, 1], as the pipeline divides.
    func input(_ index: Int) -> [Float] { bytes(index).map { Float($0) / 255 } }

    func bytes(_ index: Int) -> Data {
        let size = description.tensors.size
        return pixels.subdata(in: index * size..<(index + 1) * size)
    }

    func url(_ artifact: RunDescription.Artifact) -> URL {
        folder.appendingPathComponent(artifact.path, isDirectory: true)
    }

    private static func check(_ artifact: RunDescription.Artifact, in folder: URL) throws {
        guard isSafePath(artifact.fileName) else { throw RunnerError("'\(artifact.artifact)' is no artifact's name") }
        for file in artifact.files { try check("\(artifact.path)/\(file.path)", file.sha256, in: folder) }
        // cspedge's digest of a folder: of this JSON
        let pairs = artifact.files.map { "[\"\($0.path)\",\"\($0.sha256)\"]" }.joined(separator: ",")
        guard sha256(Data("[\(pairs)]".utf8)) == artifact.sha256 else {
            throw RunnerError("the files of '\(artifact.artifact)' are not those of its digest; emit it again")
        }
    }

    private static func check(_ path: String, _ digest: String, in folder: URL) throws {
        guard isSafePath(path) else { throw RunnerError("run.json names the path '\(path)', which is none of a job") }
        guard let found = try? sha256(fileAt: folder.appendingPathComponent(path)) else {
            throw RunnerError("'\(path)' is missing; copy the whole folder again")
        }
        guard found == digest else { throw RunnerError("'\(path)' was changed; copy the whole folder again") }
    }
}
