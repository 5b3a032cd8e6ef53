import CspEdgeCore
import XCTest

@testable import CspEdgeKit

final class KitTests: XCTestCase {
    func testMediansOfTheLastAnswers() {
        var latency = Latency(window: 4)
        XCTAssertNil(latency.model)
        for (index, model) in [900, 5, 1, 3, 2].enumerated() {
            latency.add(Timing(preprocess: .milliseconds(index), model: .milliseconds(model)))
        }
        XCTAssertEqual(latency.count, 4)
        XCTAssertEqual(latency.model, .microseconds(2500))
        XCTAssertEqual(latency.preprocess?.milliseconds ?? 0, 2.5, accuracy: 1e-9)
        latency.add(Timing(preprocess: .zero, model: .milliseconds(7)))
        XCTAssertEqual(latency.model, .microseconds(2500))
        XCTAssertEqual(Latency(window: 0).window, 1)
    }

    func testFloorsOfSystems() {
        let phone = OperatingSystem(platform: "ios", major: 17)
        XCTAssertTrue(phone.reaches(["android-8", "ios-17", "linux"]))
        XCTAssertTrue(phone.reaches(["ios"]))
        XCTAssertFalse(phone.reaches(["ios-18", "macos-14"]))
        XCTAssertFalse(phone.reaches(["ios-x"]))
        XCTAssertFalse(phone.reaches([]))
        XCTAssertTrue(OperatingSystem(platform: "linux", major: 6).reaches(["linux"]))
    }

    func testAWinnerMustLeadByMoreThanTheMargin() {
        XCTAssertEqual(clearWinner([1, 4, 2], margin: 1.5), 1)
        XCTAssertNil(clearWinner([1, 4, 2], margin: 2))
        XCTAssertEqual(clearWinner([3], margin: 9), 0)
        XCTAssertNil(clearWinner([], margin: 0))
    }

    func testEveryErrorSaysWhatToDo() {
        let errors: [any LocalizedError] = [
            KitError.imageUnreadable("it is damaged"), KitError.modelsMissing("there is no public.pem"),
            KitError.nothingRuns(["coreml/int8"]), KitError.artifactUnknown("a/int8", known: ["coreml/int8"]),
            KitError.runtimeDisagrees("it has no output 'logits'"), Refusal(.fileChanged, "'labels.txt' has changed"),
        ]
        for error in errors {
            XCTAssertFalse((error.errorDescription ?? "").isEmpty)
            XCTAssertTrue((error.recoverySuggestion ?? "").hasSuffix("."), "\(error)")
            XCTAssertEqual(error.localizedDescription, error.errorDescription)
        }
    }
}
