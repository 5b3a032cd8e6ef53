import Foundation

let manifestFile = "manifest.json"

public struct FileEntry: Equatable, Sendable {
    public let path: String
    public let bytes: Int
    public let sha256: String
}

/// One output of the model: `shape` begins with 1; `values`: logits, features or embedding.
public struct Output: Equatable, Sendable {
    public let name: String
    public let shape: [Int]
    public let values: String

    package var size: Int { shape.reduce(1, *) }
}

/// What an output must be on the golden images, and the largest allowed difference of any value.
public struct GoldenOutput: Equatable, Sendable {
    public let output: String
    public let file: String
    public let maxAbs: Double
}

public struct Artifact: Equatable, Sendable {
    public let target: String
    public let backend: String
    public let precision: String
    public let path: String
    public let files: [String]
    public let runtimeName: String
    public let runtimeVersion: String
    public let verdict: String
    public let golden: [GoldenOutput]
    /// The oldest systems that it runs on, each `<platform>-<major>`, as in `ios-17`.
    public let minimumOS: [String]
    /// SHA-256 over its files' paths and digests: equal for equal bytes, whichever bundle they came in.
    public let digest: String

    public var label: String { "\(target)/\(precision)" }
}

public struct GoldenImage: Equatable, Sendable {
    public let file: String
    public let rgb: String
    public let tensor: String
    public let width: Int
    public let height: Int
    public let label: Int?
}

/// manifest.json, schema 1: what an app needs of it. All of it has been checked against the schema.
public struct Manifest: Equatable, Sendable {
    public let name: String
    public let version: Version
    public let minimumVersion: Version
    public let numClasses: Int
    public let labels: String?
    public let preprocess: Preprocess
    public let outputs: [Output]
    public let artifacts: [Artifact]
    public let goldenImages: [GoldenImage]
    public let files: [FileEntry]

    /// Of the model's input: float32 [1, 3, H, W].
    public var inputShape: [Int] { [1, 3, preprocess.cropHeight, preprocess.cropWidth] }

    /// Refusal: manifest-invalid, schema-newer, unknown-field.
    public init(_ bytes: Data) throws {
        let root: JSONValue
        do {
            root = try parseJSON([UInt8](bytes))
        } catch let error as JSONError {
            throw invalid("is not JSON: \(error.description)")
        }
        guard let schema = root["schema"], schema.isInteger, let number = schema.number else {
            throw invalid("is no object with the number of its schema")
        }
        if number > 1 {
            throw Refusal(
                .schemaNewer, "\(manifestFile) has a schema above 1, which this app reads; it must be updated")
        }
        try Schema(root: try parseJSON(PackageResources.bundle_schema_json)).check(root, manifestFile)
        try self.init(Reader(value: root))
        try checkRules(Reader(value: root))
    }

    private init(_ root: Reader) throws {
        let model = try root["model"]
        name = try root["name"].text
        version = try root["version"].version
        minimumVersion = try root["minimum_version"].version
        numClasses = try model["num_classes"].int
        labels = try model["labels"].value.string
        preprocess = try Preprocess(try root["preprocess"])
        outputs = try root["outputs"].items.map {
            Output(name: try $0["name"].text, shape: try $0["shape"].ints, values: try $0["values"].text)
        }
        goldenImages = try root["golden"]["images"].items.map(GoldenImage.init)
        files = try root["files"].items.map {
            FileEntry(path: try $0["path"].text, bytes: try $0["bytes"].int, sha256: try $0["sha256"].text)
        }
        let digests = Dictionary(files.map { ($0.path, $0.sha256) }, uniquingKeysWith: { first, _ in first })
        artifacts = try root["artifacts"].items.map { try Artifact($0, digests) }
    }

    /// The rules between fields, which a JSON Schema cannot say.
    private func checkRules(_ root: Reader) throws {
        if minimumVersion > version { throw invalid("has a minimum_version above its version") }
        if try root["input"]["shape"].ints != inputShape {
            throw invalid("has an input.shape that is not [1, 3, crop.height, crop.width]")
        }
        if preprocess.rule == .shorterEdge && preprocess.height != preprocess.width {
            throw invalid("has the rule 'shorter-edge' with two different edges")
        }
        if Set(artifacts.map(\.label)).count < artifacts.count { throw invalid("names an artifact twice") }
        for artifact in artifacts where artifact.files.contains(where: { !$0.isAt(artifact.path) }) {
            throw invalid("gives \(artifact.label) a file outside its path")
        }
        let reference = try root["golden"]["reference"].items
        let answers = try artifacts.map { $0.golden.map(\.output) } + [reference.map { try $0["output"].text }]
        if answers.contains(where: { $0 != outputs.map(\.name) }) {
            throw invalid("has golden answers for other outputs than the model's")
        }
        var named = artifacts.flatMap { $0.files + $0.golden.map(\.file) } + (labels.map { [$0] } ?? [])
        named += goldenImages.flatMap { [$0.file, $0.rgb, $0.tensor] }
        named += try reference.map { try $0["file"].text }
        named += try root["licenses"]["files"].items.map { try $0.text }
        let listed = Set(files.map(\.path))
        if listed.count < files.count { throw invalid("lists a file twice") }
        if let path = named.first(where: { !listed.contains($0) }) {
            throw invalid("names '\(path)', which is not in its list of files")
        }
    }
}

extension Preprocess {
    /// From the manifest's `preprocess`, which the schema has been checked against.
    package init(_ contract: Reader) throws {
        let resize = try contract["resize"]
        guard let rule = ResizeRule(rawValue: try resize["rule"].text),
            let interpolation = Interpolation(rawValue: try resize["interpolation"].text)
        else { throw invalid("has a resize that is not known") }
        self.rule = rule
        self.interpolation = interpolation
        widthFirst = try resize["first_pass"].text == "width"
        height = try resize["height"].int
        width = try resize["width"].int
        cropHeight = try contract["crop"]["height"].int
        cropWidth = try contract["crop"]["width"].int
        pad = try contract["pad"].ints.map(UInt8.init(clamping:))
        maxPixels = try contract["max_pixels"].int
    }
}

extension Artifact {
    fileprivate init(_ entry: Reader, _ digests: [String: String]) throws {
        target = try entry["target"].text
        backend = try entry["backend"].text
        precision = try entry["precision"].text
        path = try entry["path"].text
        files = try entry["files"].items.map { try $0.text }
        runtimeName = try entry["runtime"]["name"].text
        runtimeVersion = try entry["runtime"]["version"].text
        verdict = try entry["evidence"]["verdict"].text
        minimumOS = try entry["minimum_os"].items.map { try $0.text }
        let place = path
        let lines = files.sorted().map { "\($0.dropFirst(place.count))\0\(digests[$0] ?? "")\n" }
        digest = sha256(Data(lines.joined().utf8))
        golden = try entry["golden"].items.map {
            GoldenOutput(output: try $0["output"].text, file: try $0["file"].text, maxAbs: try $0["max_abs"].number)
        }
    }
}

extension GoldenImage {
    fileprivate init(_ entry: Reader) throws {
        file = try entry["file"].text
        rgb = try entry["rgb"].text
        tensor = try entry["tensor"].text
        width = try entry["width"].int
        height = try entry["height"].int
        label = try entry["label"].value == .null ? nil : entry["label"].int
    }
}

extension String {
    /// Whether this path is `path` or lies below it.
    fileprivate func isAt(_ path: String) -> Bool { self == path || hasPrefix(path + "/") }
}

/// Reads fields that the schema has been checked for; what is missing all the same is manifest-invalid.
package struct Reader {
    package let value: JSONValue

    package init(value: JSONValue) {
        self.value = value
    }

    package subscript(name: String) -> Reader {
        get throws {
            guard let field = value[name] else { throw invalid("lacks the field '\(name)'") }
            return Reader(value: field)
        }
    }

    package var items: [Reader] { (value.array ?? []).map(Reader.init(value:)) }

    package var ints: [Int] { get throws { try items.map { try $0.int } } }

    package var text: String {
        get throws {
            guard let text = value.string else { throw invalid("has something else where a text is needed") }
            return text
        }
    }

    package var number: Double {
        get throws {
            guard let number = value.number else { throw invalid("has something else where a number is needed") }
            return number
        }
    }

    package var int: Int {
        get throws {
            guard let int = Int(exactly: try number), abs(int) < 1 << 53 else {
                throw invalid("has the number \(try number), which is too large")
            }
            return int
        }
    }

    package var version: Version { get throws { try Version(try text) } }
}

private func invalid(_ what: String) -> Refusal { Refusal(.manifestInvalid, "\(manifestFile) \(what)") }
