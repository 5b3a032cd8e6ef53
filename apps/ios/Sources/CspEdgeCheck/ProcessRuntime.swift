#if os(macOS) || os(Linux)
    import CspEdgeCore
    import Foundation

    /// A real runtime in a process of its own: float32 in and out over its pipes.
    struct ProcessRuntime: ModelRuntime {
        let command: [String]
        let backend: String

        func runs(_ artifact: Artifact) -> Bool { artifact.backend == backend }

        func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) throws -> any ModelSession {
            try ProcessSession(command: command + [url.path], sizes: manifest.outputs.map(\.size))
        }
    }

    /// Used from one thread: the golden images go through one after another.
    private final class ProcessSession: ModelSession, @unchecked Sendable {
        private let process = Process()
        private let input = Pipe()
        private let output = Pipe()
        private let sizes: [Int]

        init(command: [String], sizes: [Int]) throws {
            self.sizes = sizes
            process.executableURL = URL(fileURLWithPath: command[0])
            process.arguments = Array(command.dropFirst())
            process.standardInput = input
            process.standardOutput = output
            try process.run()
        }

        deinit {
            try? input.fileHandleForWriting.close()
            process.waitUntilExit()
        }

        func run(_ values: [Float]) throws -> [[Float]] {
            let bytes = values.flatMap { value in
                (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) }
            }
            try input.fileHandleForWriting.write(contentsOf: Data(bytes))
            return try sizes.map { size in
                var data = Data()
                while data.count < 4 * size {
                    guard let piece = try output.fileHandleForReading.read(upToCount: 4 * size - data.count),
                        !piece.isEmpty
                    else { throw JobError(description: "the runtime ended before it answered") }
                    data.append(piece)
                }
                return floats(data)
            }
        }
    }
#endif
