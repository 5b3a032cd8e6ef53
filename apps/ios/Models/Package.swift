// swift-tools-version: 6.0
import PackageDescription

// `cspedge bundle --app ios` sets it where the bundle holds ExecuTorch programs.
let executorch = false

let package = Package(
    name: "CspEdgeModels",
    platforms: executorch ? [.iOS(.v17), .macOS(.v14)] : [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "CspEdgeModels", targets: ["CspEdgeModels"])],
    dependencies: [.package(name: "CspEdge", path: "..")]
        + (executorch ? [.package(name: "CspEdgeExecuTorch", path: "../ExecuTorch")] : []),
    targets: [
        .target(
            name: "CspEdgeModels",
            dependencies: [.product(name: "CspEdgeKit", package: "CspEdge")]
                + (executorch ? [.product(name: "CspEdgeExecuTorch", package: "CspEdgeExecuTorch")] : []),
            // Copied, never processed: Xcode must not compile a model whose bytes are signed. (A folder called Resources
            // would make the resource bundle look like a Mac's, which an iPhone's code signing refuses.)
            resources: [.copy("Signed")]
        )
    ],
    swiftLanguageModes: [.v6]
)
