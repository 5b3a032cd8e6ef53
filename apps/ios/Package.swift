// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "CspEdge",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "CspEdgeCore", targets: ["CspEdgeCore"])],
    targets: [
        // Linux has no CryptoKit; apps never see this target.
        .systemLibrary(name: "CLibcrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(
            name: "CspEdgeCore",
            dependencies: [.target(name: "CLibcrypto", condition: .when(platforms: [.linux]))],
            resources: [.embedInCode("bundle.schema.json")]
        ),
        .executableTarget(name: "CspEdgeCheck", dependencies: ["CspEdgeCore"]),
        .testTarget(name: "CspEdgeCoreTests", dependencies: ["CspEdgeCore"]),
    ],
    swiftLanguageModes: [.v6]
)
