import CspEdgeCore
import XCTest

@testable import CspEdgeRunner

/// The part of the runner that needs no Core ML, with a "model" that adds up its input and one that does not load.
final class RunnerTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "/")
    private var results: URL { folder.appendingPathComponent("results") }
    private let pixels: [UInt8] = [0, 255, 51, 0, 0, 0, 255, 255, 255, 1, 2, 3]  // four images of 3 x 1 x 1

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try write(Data(pixels), "inputs.u8")
        try write(Data("program".utf8), "models/good.mlpackage/Data/model")
        try write(Data("program".utf8), "models/bad.mlpackage/Data/model")
        try describe()
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: folder) }

    func testEveryArtifactIsValidatedOnAllImagesAndTimedOnTheFirst() async throws {
        try await run()
        let found = try read()
        XCTAssertEqual(found["schema"] as? Int, 1)
        XCTAssertEqual(found["run_sha256"] as? String, try sha256(fileAt: place("run.json")))
        XCTAssertEqual(found["run_sha256"] as? String, try sha256(fileAt: results.appendingPathComponent("run.json")))
        let device = try XCTUnwrap(found["device"] as? [String: Any])
        XCTAssertEqual(device["uri"] as? String, "mac://")
        XCTAssertEqual(device["thermal_after"] as? String, "fair")
        let artifact = try XCTUnwrap((found["artifacts"] as? [[String: Any]])?.first)
        XCTAssertEqual(artifact["artifact"] as? String, "coreml/int8")
        XCTAssertEqual(artifact["operations"] as? [String: Int], ["CPU": 1, "NeuralEngine": 2])
        let validated = try XCTUnwrap(artifact["validated"] as? [String: Any])
        XCTAssertEqual(validated["images"] as? Int, 4)
        XCTAssertEqual(validated["delegates"] as? [String], ["CPU", "NeuralEngine"])
        let outputs = results.appendingPathComponent("coreml-int8.f32")
        XCTAssertEqual(validated["outputs_sha256"] as? String, try sha256(fileAt: outputs))
        let sums = stride(from: 0, to: 12, by: 3).map { at in
            pixels[at..<at + 3].reduce(Float(0)) { $0 + Float($1) / 255 }
        }
        XCTAssertEqual(try Data(contentsOf: outputs), littleEndian(sums))
        let timed = try XCTUnwrap(artifact["timed"] as? [[String: Any]])
        XCTAssertEqual(timed.map { ($0["samples_ms"] as? [Double])?.count }, [3, 3])
        XCTAssertTrue(timed.allSatisfy { $0["outputs_sha256"] is NSNull && $0["images"] as? Int == 1 })
        XCTAssertEqual(timed.first?["tensors_sha256"] as? String, sha256(Data(pixels.prefix(3))))
    }

    func testAnArtifactThatFailsHasItsReasonAndTheOthersGoOn() async throws {
        try await run()
        let failures = try XCTUnwrap(try read()["failures"] as? [[String: String]])
        XCTAssertEqual(failures, [["artifact": "coreml/fp16", "reason": "it does not load"]])
    }

    func testResultsOfAnEarlierRunAreGoneBeforeAnotherOneFails() async throws {
        try await run()
        try FileManager.default.removeItem(at: results.appendingPathComponent("coreml-int8.f32"))
        try FileManager.default.createDirectory(
            at: results.appendingPathComponent("coreml-int8.f32"), withIntermediateDirectories: true)
        try await run()
        let reasons = try XCTUnwrap(try read()["failures"] as? [[String: String]])
        XCTAssertEqual(reasons.count, 2, "the old outputs are not taken for new ones")
    }

    func testWhatIsNotAsItWasWrittenIsRefused() throws {
        for path in ["inputs.u8", "models/good.mlpackage/Data/model"] {
            let kept = try Data(contentsOf: place(path))
            try Data("x".utf8).write(to: place(path))
            XCTAssertThrowsError(try Job(folder)) {
                XCTAssertTrue("\($0)".contains("'\(path)' was changed"), "\($0)")
            }
            try FileManager.default.removeItem(at: place(path))
            XCTAssertThrowsError(try Job(folder)) {
                XCTAssertTrue("\($0)".contains("'\(path)' is missing"), "\($0)")
            }
            try kept.write(to: place(path))
        }
        XCTAssertNoThrow(try Job(folder))
    }

    func testDescriptionsOfSomethingElse() throws {
        for (change, words): ((String) -> String, String) in [
            ({ $0.replacingOccurrences(of: "\"runner\":\"1\"", with: "\"runner\":\"2\"") }, "for runner 2, and"),
            ({ $0.replacingOccurrences(of: "schema\":1", with: "schema\":7") }, "has schema 7 for"),
            ({ $0.replacingOccurrences(of: "\"images\":4", with: "\"images\":5") }, "has 12 bytes, not 5 x 3"),
            ({ $0.replacingOccurrences(of: "inputs.u8", with: "../inputs.u8") }, "which is none of a job"),
            ({ $0.replacingOccurrences(of: "Data/model", with: "Data/../model") }, "which is none of a job"),
            ({ $0.replacingOccurrences(of: "\"all\"", with: "\"gpu\"") }, "is not one that this runner knows"),
        ] {
            try describe()
            let text = try String(contentsOf: place("run.json"), encoding: .utf8)
            XCTAssertNotEqual(change(text), text)
            try write(Data(change(text).utf8), "run.json")
            XCTAssertThrowsError(try Job(folder)) { XCTAssertTrue("\($0)".contains(words), "\($0)") }
        }
        try FileManager.default.removeItem(at: place("run.json"))
        XCTAssertThrowsError(try Job(folder)) { XCTAssertTrue("\($0)".contains("there is no run.json"), "\($0)") }
    }

    func testAFolderSDigestIsThatOfItsFiles() throws {
        try describe(digest: String(repeating: "0", count: 64))
        XCTAssertThrowsError(try Job(folder)) {
            XCTAssertTrue("\($0)".contains("are not those of its digest"), "\($0)")
        }
    }

    private func run() async throws {
        try await Runner(engine: Sums(), machine: Warm()).run(Job(folder), results: results)
    }

    private func read() throws -> [String: Any] {
        let data = try Data(contentsOf: results.appendingPathComponent("results.json"))
        return try XCTUnwrap(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    private func place(_ path: String) -> URL { folder.appendingPathComponent(path) }

    private func write(_ data: Data, _ path: String) throws {
        let url = place(path)
        try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try data.write(to: url)
    }

    /// run.json; digest: of the packages, nil for the right one.
    private func describe(digest: String? = nil) throws {
        let file = try sha256(fileAt: place("models/good.mlpackage/Data/model"))
        let folderDigest = digest ?? sha256(Data("[[\"Data/model\",\"\(file)\"]]".utf8))
        let artifacts = [("coreml/int8", "good"), ("coreml/fp16", "bad")].map { label, name in
            """
            {"artifact":"\(label)","path":"models/\(name).mlpackage","sha256":"\(folderDigest)",
             "files":[{"path":"Data/model","sha256":"\(file)"}],"outputs":[{"name":"logits","shape":[1]}]}
            """
        }
        let tensors = try sha256(fileAt: place("inputs.u8"))
        let text = """
            {"schema":1,"runner":"1","device":"mac://","units":"all","warmup":2,"rounds":2,"per_round":3,
             "tensors":{"file":"inputs.u8","sha256":"\(tensors)","images":4,"shape":[3,1,1]},
             "artifacts":[\(artifacts.joined(separator: ","))]}
            """
        try write(Data(text.utf8), "run.json")
    }
}

private struct Sums: Engine {
    let runtime = Line.Runtime(name: "sums", version: "1")

    func compile(_ package: URL) throws -> URL { package }

    func operations(_ compiled: URL, units: ComputeUnits) -> [String: Int] { ["CPU": 1, "NeuralEngine": 2] }

    func load(
        _ compiled: URL, shape: [Int], outputs: [String], units: ComputeUnits
    ) throws -> any TimedSession {
        if compiled.lastPathComponent == "bad.mlpackage" { throw RunnerError("it does not load") }
        return Sum()
    }
}

private struct Sum: TimedSession {
    func run(_ input: [Float]) throws -> [[Float]] { [[input.reduce(0, +)]] }

    func times(_ input: [Float], count: Int) throws -> [Duration] {
        let clock = ContinuousClock()
        return try (0..<count).map { _ in try clock.measure { _ = try run(input) } }
    }
}

private struct Warm: Machine {
    let facts = DeviceFacts(platform: "macOS", model: "a test", machine: "none", system: "none")
    let lowPowerMode = false
    let thermalState = "fair"
    let footprint = 0
}
