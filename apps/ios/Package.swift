// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "CspEdge",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "CspEdgeCore", targets: ["CspEdgeCore"]),
        .library(name: "CspEdgeKit", targets: ["CspEdgeKit"]),
    ],
    targets: [
        // Linux has no CryptoKit; apps never see this target.
        .systemLibrary(name: "CLibcrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(
            name: "CspEdgeCore",
            dependencies: [.target(name: "CLibcrypto", condition: .when(platforms: [.linux]))],
            resources: [.embedInCode("bundle.schema.json")]
        ),
        // For Apple's systems. What needs their frameworks stands in files of its own behind `#if canImport`; the rest
        // builds and is tested on Linux too. ExecuTorch is a package of its own (ExecuTorch/), so that an app with
        // Core ML alone does not fetch it.
        .target(name: "CspEdgeKit", dependencies: ["CspEdgeCore"]),
        .executableTarget(name: "CspEdgeCheck", dependencies: ["CspEdgeKit"]),
        .testTarget(name: "CspEdgeCoreTests", dependencies: ["CspEdgeCore"]),
        .testTarget(name: "CspEdgeKitTests", dependencies: ["CspEdgeKit"]),
    ],
    swiftLanguageModes: [.v6]
)
