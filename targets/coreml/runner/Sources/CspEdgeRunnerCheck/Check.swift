import CspEdgeCore
import CspEdgeRunner
import Foundation

/// `CspEdgeRunnerCheck JOB RESULTS ANSWERS`: the portable part of the runner, for tests on systems without Core ML.
///
/// ANSWERS has what another program computed, and names what took Core ML's place. Nothing is measured here.
@main
struct Check {
    static func main() async throws {
        let places = CommandLine.arguments.dropFirst().map { URL(fileURLWithPath: $0) }
        guard places.count == 3 else { exit(2) }
        do {
            let answers = try JSONDecoder().decode(Answers.self, from: Data(contentsOf: places[2]))
            try await Runner(engine: Recorded(answers: answers), machine: Named(facts: answers.facts))
                .run(Job(places[0]), results: places[1])
        } catch {
            FileHandle.standardError.write(Data("error: \(error.localizedDescription)\n".utf8))
            exit(1)
        }
    }
}

struct Answers: Codable, Sendable {
    let facts: DeviceFacts
    let runtime: String
    /// By the artifact's folder, then by the SHA-256 of an input's float32 bytes: each output.
    let outputs: [String: [String: [[Float]]]]
}

struct Recorded: Engine {
    let answers: Answers

    var runtime: Line.Runtime { Line.Runtime(name: answers.runtime, version: "none") }

    func compile(_ package: URL) throws -> URL { package }

    func operations(_ compiled: URL, units: ComputeUnits) -> [String: Int] { [:] }

    func load(
        _ compiled: URL, shape: [Int], outputs: [String], units: ComputeUnits
    ) throws -> any TimedSession {
        guard let rows = answers.outputs[compiled.lastPathComponent] else {
            throw RunnerError("nothing was recorded of '\(compiled.lastPathComponent)'")
        }
        return Rows(rows: rows)
    }
}

struct Rows: TimedSession {
    let rows: [String: [[Float]]]

    func run(_ input: [Float]) throws -> [[Float]] {
        let digest = input.withUnsafeBytes { sha256(Data($0)) }
        guard let found = rows[digest] else { throw RunnerError("no answer was recorded for this input") }
        return found
    }

    func times(_ input: [Float], count: Int) throws -> [Duration] {
        let clock = ContinuousClock()
        return try (0..<count).map { _ in try clock.measure { _ = try run(input) } }
    }
}

struct Named: Machine {
    let facts: DeviceFacts
    let lowPowerMode = false
    let thermalState = "nominal"
    let footprint = 0
}
