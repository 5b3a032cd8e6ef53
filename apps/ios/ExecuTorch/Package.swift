// swift-tools-version: 6.0
import PackageDescription

// The version of ExecuTorch that the artifacts were made with; `cspedge bundle --app ios` writes the bundle's.
let version = "1.5.1"

let package = Package(
    name: "CspEdgeExecuTorch",
    // ExecuTorch's own floor
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "CspEdgeExecuTorch", targets: ["CspEdgeExecuTorch"])],
    dependencies: [
        .package(name: "CspEdge", path: ".."),
        // ExecuTorch publishes its binaries as a branch for each version.
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-\(version)"),
    ],
    targets: [
        .target(
            name: "CspEdgeExecuTorch",
            dependencies: [
                .product(name: "CspEdgeKit", package: "CspEdge"),
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
            ],
            // Backends and kernels register themselves when they are loaded, so the linker must not drop them.
            linkerSettings: [.unsafeFlags(["-Wl,-all_load"])]
        )
    ],
    swiftLanguageModes: [.v6]
)
