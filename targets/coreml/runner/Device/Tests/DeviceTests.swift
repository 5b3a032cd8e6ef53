import CspEdgeRunner
import XCTest

/// The app's job, run by Core ML on this device; its results lie in the app's Documents afterwards.
final class DeviceTests: XCTestCase {
    func testTheJob() async throws {
        let folder = try XCTUnwrap(Bundle.main.url(forResource: "Job", withExtension: nil))
        let job = try Job(folder)
        let results = URL.documentsDirectory.appendingPathComponent("results", isDirectory: true)
        try await Runner(engine: CoreMLEngine(), machine: AppleMachine()).run(job, results: results)
    }
}
