// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "CspEdgeRunner",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "CspEdgeRunner", targets: ["CspEdgeRunner"]),
        .executable(name: "cspedge-coreml-runner", targets: ["CspEdgeRunnerTool"]),
    ],
    // Core ML's session, digests and names are those of the module that apps take over.
    dependencies: [.package(name: "CspEdge", path: "../../../apps/ios")],
    targets: [
        .target(
            name: "CspEdgeRunner",
            dependencies: [
                .product(name: "CspEdgeCore", package: "CspEdge"), .product(name: "CspEdgeKit", package: "CspEdge"),
            ]
        ),
        .executableTarget(name: "CspEdgeRunnerTool", dependencies: ["CspEdgeRunner"]),
        // For cspedge's own tests, on systems without Core ML: answers from a file, as they were computed elsewhere.
        .executableTarget(name: "CspEdgeRunnerCheck", dependencies: ["CspEdgeRunner"]),
        .testTarget(name: "CspEdgeRunnerTests", dependencies: ["CspEdgeRunner"]),
    ],
    swiftLanguageModes: [.v6]
)
