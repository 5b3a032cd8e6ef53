import CspEdgeCore
import CspEdgeKit
import Foundation

/// An open model that can be timed.
public protocol TimedSession: ModelSession {
    /// What each of `count` inferences on one input takes, the input handed over before.
    func times(_ input: [Float], count: Int) throws -> [Duration]
}

/// A runtime: Core ML on Apple's systems.
public protocol Engine: Sendable {
    var runtime: Line.Runtime { get }

    /// Makes of the package at `package` what `load` takes.
    func compile(_ package: URL) async throws -> URL

    func load(_ compiled: URL, shape: [Int], outputs: [String], units: ComputeUnits) throws -> any TimedSession

    /// How many operations it means to run on each of its devices; empty where it does not tell.
    func operations(_ compiled: URL, units: ComputeUnits) async throws -> [String: Int]
}

/// The machine that a run is on.
public protocol Machine: Sendable {
    var facts: DeviceFacts { get }
    var lowPowerMode: Bool { get }
    /// nominal, fair, serious or critical.
    var thermalState: String { get }
    /// Bytes that this process holds now.
    var footprint: Int { get }
}

/// Runs a job: each artifact on all images, then in rounds on the first one, a freshly loaded model each time.
public struct Runner: Sendable {
    private let engine: any Engine
    private let machine: any Machine

    public init(engine: any Engine, machine: any Machine) {
        self.engine = engine
        self.machine = machine
    }

    /// Writes `results.json`, each artifact's outputs and a copy of `run.json` into the folder `results`. An artifact that
    /// fails has its reason there, and the others go on. Throws where the results cannot be written.
    public func run(_ job: Job, results: URL) async throws {
        let files = FileManager.default
        try files.createDirectory(at: results, withIntermediateDirectories: true)
        let place = results.appendingPathComponent(Results.fileName)
        if files.fileExists(atPath: place.path) { try files.removeItem(at: place) }  // of an earlier run
        try job.text.write(to: results.appendingPathComponent(Job.fileName), options: .atomic)
        let before = machine.thermalState
        var ready: [Ready] = []
        var failures: [Results.Failure] = []
        for artifact in job.description.artifacts {
            do {
                ready.append(try await validate(artifact, job, results))
            } catch {
                failures.append(Results.Failure(artifact: artifact.artifact, reason: sentence(error)))
            }
        }
        try time(&ready, job, &failures)
        let state = DeviceState(
            uri: job.description.device, facts: machine.facts, units: job.description.units,
            lowPowerMode: machine.lowPowerMode, thermalBefore: before, thermalAfter: machine.thermalState)
        let found = Results(
            runSha256: job.digest, device: state, artifacts: ready.map(\.result), failures: failures)
        try found.json().write(to: place, options: .atomic)
    }

    private struct Ready {
        let artifact: RunDescription.Artifact
        let compiled: URL
        let compileMs: Double
        let operations: [String: Int]
        let validated: Line
        var timed: [Line] = []

        var result: Results.Artifact {
            Results.Artifact(
                artifact: artifact.artifact, compileMs: compileMs, operations: operations, validated: validated,
                timed: timed)
        }
    }

    private func validate(_ artifact: RunDescription.Artifact, _ job: Job, _ results: URL) async throws -> Ready {
        let clock = ContinuousClock()
        let start = clock.now
        let compiled = try await engine.compile(job.url(artifact))
        let compileMs = (clock.now - start).milliseconds
        let operations = try await engine.operations(compiled, units: job.description.units)
        let opened = try open(artifact, compiled, job)
        let place = results.appendingPathComponent("\(artifact.fileName).f32")
        try Data().write(to: place)
        let file = try FileHandle(forWritingTo: place)
        defer { try? file.close() }
        for index in 0..<job.description.tensors.images {
            let answer = try opened.session.run(job.input(index))
            let sizes = artifact.outputs.map(\.size)
            guard answer.map(\.count) == sizes else {
                throw RunnerError("it gave outputs of \(answer.map(\.count)) values, not of \(sizes)")
            }
            try file.write(contentsOf: littleEndian(answer.joined()))
        }
        try file.synchronize()
        let line = Line(
            artifact: artifact.artifact, sha256: artifact.sha256, runtime: engine.runtime,
            delegates: delegates(operations), images: job.description.tensors.images,
            tensorsSha256: job.description.tensors.sha256, outputsSha256: try sha256(fileAt: place),
            loadMs: opened.loadMs, firstMs: opened.firstMs, samplesMs: [],
            peakRssBytes: max(opened.footprint, machine.footprint))
        return Ready(
            artifact: artifact, compiled: compiled, compileMs: compileMs, operations: operations, validated: line)
    }

    /// The order rotates by one a round, so that none profits from always running first.
    private func time(_ ready: inout [Ready], _ job: Job, _ failures: inout [Results.Failure]) throws {
        let digest = sha256(job.bytes(0))
        for round in 0..<job.description.rounds {
            var failed: [String] = []
            for step in 0..<ready.count {
                let index = (step + round) % ready.count
                do {
                    ready[index].timed.append(try burst(ready[index], job, digest))
                } catch {
                    failed.append(ready[index].artifact.artifact)
                    let reason = "\(sentence(error)) (in round \(round + 1) of \(job.description.rounds))"
                    failures.append(Results.Failure(artifact: ready[index].artifact.artifact, reason: reason))
                }
            }
            ready.removeAll { failed.contains($0.artifact.artifact) }
        }
    }

    private func burst(_ ready: Ready, _ job: Job, _ digest: String) throws -> Line {
        let opened = try open(ready.artifact, ready.compiled, job)
        let input = job.input(0)
        _ = try opened.session.times(input, count: max(0, job.description.warmup - 1))
        let samples = try opened.session.times(input, count: job.description.perRound)
        return Line(
            artifact: ready.artifact.artifact, sha256: ready.artifact.sha256, runtime: engine.runtime,
            delegates: delegates(ready.operations), images: 1, tensorsSha256: digest, outputsSha256: nil,
            loadMs: opened.loadMs, firstMs: opened.firstMs, samplesMs: samples.map(\.milliseconds),
            peakRssBytes: max(opened.footprint, machine.footprint))
    }

    private struct Opened {
        let session: any TimedSession
        let loadMs: Double
        let firstMs: Double
        let footprint: Int
    }

    private func open(_ artifact: RunDescription.Artifact, _ compiled: URL, _ job: Job) throws -> Opened {
        let clock = ContinuousClock()
        let start = clock.now
        let session = try engine.load(
            compiled, shape: [1] + job.description.tensors.shape, outputs: artifact.outputs.map(\.name),
            units: job.description.units)
        let loaded = clock.now
        let first = try session.times(job.input(0), count: 1)
        return Opened(
            session: session, loadMs: (loaded - start).milliseconds, firstMs: first[0].milliseconds,
            footprint: machine.footprint)
    }

    private func delegates(_ operations: [String: Int]) -> [String] {
        operations.isEmpty ? ["CoreML"] : operations.keys.sorted()
    }
}

/// float32, four bytes each, as numpy's `<f4` reads them.
func littleEndian(_ values: some Sequence<Float>) -> Data {
    var data = Data()
    for value in values {
        withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) }
    }
    return data
}

/// An error's own words in one line.
func sentence(_ error: any Error) -> String {
    let text = (error as? any LocalizedError)?.errorDescription ?? "\(error)"
    let line = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    return String(line.prefix(300))
}
