#if os(macOS) || os(Linux)
    import CspEdgeCore
    import CspEdgeKit
    import Foundation

    /// Runs a list of jobs through the core and prints one JSON value a line: what Python's tests compare with.
    /// The Kotlin module has the same program, with the same jobs.
    @main
    struct Check {
        static func main() async throws {
            let jobs = try parseJSON([UInt8](try Data(contentsOf: URL(fileURLWithPath: CommandLine.arguments[1]))))
            for job in Reader(value: jobs).items {
                do {
                    print(try await run(job))
                } catch let refusal as Refusal {
                    print("{\"kind\": \(quoted(refusal.kind.rawValue)), \"message\": \(quoted(refusal.message))}")
                }
            }
        }

        private static func run(_ job: Reader) async throws -> String {
            switch try job["do"].text {
            case "preprocess": return try preprocess(job)
            case "verify":
                let bundle = try ModelBundle(folder: try url(job, "bundle"), key: try key(job))
                return describe(try await replayGolden(bundle, runtime: try runtime(job)))
            case "accept":
                let accepted = try await store(job).accept(try url(job, "bundle"), runtime: try runtime(job))
                return describe(accepted.report)
            case "installed":
                guard let bundle = try await store(job).installed() else { return "null" }
                return quoted(bundle.manifest.version.description)
            case "top":
                let logits = floats(try Data(contentsOf: try url(job, "logits")))
                let labels = try job["labels"].items.map { try $0.text }
                let ranked = try topK(logits, labels: labels, count: try job["count"].int)
                return "["
                    + ranked.map { "[\($0.index), \(quoted($0.label)), \($0.probability)]" }.joined(separator: ", ")
                    + "]"
            case "classify": return try await classify(job)
            case "upright": return try upright(job)
            case let task: throw JobError(description: "unknown job '\(task)'")
            }
        }

        private static func preprocess(_ job: Reader) throws -> String {
            let (width, height) = (try job["width"].int, try job["height"].int)
            let pixels = [UInt8](try Data(contentsOf: try url(job, "rgb")))
            // through rows of four bytes a pixel with a gap, as Core Graphics gives them
            var rgbx: [UInt8] = []
            for y in 0..<height {
                for x in 0..<width {
                    let at = 3 * (y * width + x)
                    rgbx += pixels[at..<(at + 3)] + [UInt8(truncatingIfNeeded: x)]
                }
                rgbx += [1, 2, 3, 4]
            }
            let image = try RGBImage(width: width, height: height, rgbx: rgbx, bytesPerRow: 4 * width + 4)
            let tensor = try Preprocess(try job["preprocess"]).tensor(image)
            try Data(tensor).write(to: try url(job, "out"))
            return "{\"sha256\": \(quoted(sha256(tensor)))}"
        }

        /// The kit's whole way: a checked bundle, its best artifact, pixels in, classes out; then its self-test.
        private static func classify(_ job: Reader) async throws -> String {
            let bundle = try ModelBundle(folder: try url(job, "bundle"), key: try key(job))
            guard let runtime = try runtime(job) else { throw JobError(description: "a classifier needs a runtime") }
            let classifier = try await Classifier(bundle: bundle, runtime: Runtimes([runtime]))
            let answer = try await classifier.classify(try image(job))
            let top = answer.top.map { "[\($0.index), \(quoted($0.label)), \($0.probability)]" }
            let rows = try await classifier.selfTest(decode: nil).map { "\($0.passed)" }
            return "{\"artifact\": \(quoted(classifier.artifact.label)), \"top\": [\(top.joined(separator: ", "))], "
                + "\"passed\": [\(rows.joined(separator: ", "))]}"
        }

        private static func upright(_ job: Reader) throws -> String {
            guard let orientation = Orientation(rawValue: try job["orientation"].int) else {
                throw JobError(description: "no orientation of EXIF's")
            }
            let upright = try image(job).upright(orientation)
            try Data(upright.pixels).write(to: try url(job, "out"))
            return "[\(upright.width), \(upright.height)]"
        }

        private static func image(_ job: Reader) throws -> RGBImage {
            try RGBImage(
                width: try job["width"].int, height: try job["height"].int,
                pixels: [UInt8](try Data(contentsOf: try url(job, "rgb"))))
        }

        private static func store(_ job: Reader) throws -> BundleStore {
            guard let key = try key(job) else { throw JobError(description: "a store needs a key") }
            return BundleStore(root: try url(job, "store"), name: try job["name"].text, key: key)
        }

        private static func key(_ job: Reader) throws -> VerifyingKey? {
            guard let path = (try? job["key"])?.value.string else { return nil }
            return try VerifyingKey(pem: try String(contentsOfFile: path, encoding: .utf8))
        }

        private static func runtime(_ job: Reader) throws -> ProcessRuntime? {
            guard let command = (try? job["runtime"])?.value.array else { return nil }
            return ProcessRuntime(command: command.compactMap(\.string), backend: try job["backend"].text)
        }

        private static func url(_ job: Reader, _ field: String) throws -> URL {
            URL(fileURLWithPath: try job[field].text)
        }

        private static func describe(_ report: GoldenReport) -> String {
            let largest = report.largest.sorted { $0.key < $1.key }.map { "\(quoted($0.key)): \($0.value)" }
            let notRun = report.notRun.map(quoted)
            return
                "{\"largest\": {\(largest.joined(separator: ", "))}, \"not_run\": [\(notRun.joined(separator: ", "))]}"
        }

        private static func quoted(_ text: String) -> String {
            let escaped = text.unicodeScalars.map { scalar in
                let special = scalar == "\"" || scalar == "\\" || scalar.value < 0x20
                return special ? String(format: "\\u%04x", Int(scalar.value)) : String(scalar)
            }
            return "\"\(escaped.joined())\""
        }
    }

    struct JobError: Error, CustomStringConvertible {
        let description: String
    }
#else
    // The package is built as a whole for a phone too, which starts no other processes.
    @main
    struct Check {
        static func main() {
            print("the check program runs on macOS and Linux")
        }
    }
#endif
