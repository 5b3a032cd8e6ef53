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
