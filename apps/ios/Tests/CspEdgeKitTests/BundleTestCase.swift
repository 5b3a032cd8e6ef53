import CspEdgeCore
import XCTest

/// Tests on the bundle that CSPEDGE_BUNDLE names, with CSPEDGE_KEY, its public key.
class BundleTestCase: XCTestCase {
    func folder() throws -> URL { URL(fileURLWithPath: try variable("CSPEDGE_BUNDLE")) }

    func key() throws -> String { try String(contentsOfFile: try variable("CSPEDGE_KEY"), encoding: .utf8) }

    func bundle() throws -> ModelBundle {
        try ModelBundle(folder: try folder(), key: try VerifyingKey(pem: try key()))
    }

    private func variable(_ name: String) throws -> String {
        guard let value = ProcessInfo.processInfo.environment[name] else {
            throw XCTSkip("\(name) is not set; make a bundle with `cspedge bundle --sign` and name it")
        }
        return value
    }
}

/// Gives the stored answers of a bundle's golden images, after a while, and the first one's for any other input: what
/// surrounds a model is tested with it, no model is.
struct StoredAnswers: ModelRuntime {
    let bundle: ModelBundle

    func runs(_ artifact: Artifact) -> Bool { true }

    func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession {
        try await Task.sleep(for: .milliseconds(50))
        let rows = try zip(artifact.golden, manifest.outputs).map { try bundle.goldenRows($0, $1) }
        var answers: [[Float]: [[Float]]] = [:]
        for (index, image) in manifest.goldenImages.enumerated() {
            answers[manifest.preprocess.input(try bundle.goldenTensor(image))] = rows.map { $0[index] }
        }
        return Session(answers: answers, other: rows.map { $0[0] })
    }

    private struct Session: ModelSession {
        let answers: [[Float]: [[Float]]]
        let other: [[Float]]

        func run(_ input: [Float]) throws -> [[Float]] { answers[input] ?? other }
    }
}
