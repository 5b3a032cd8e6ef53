import CspEdgeCore
import Foundation

/// How one golden image went.
public struct SelfTestRow: Equatable, Identifiable, Sendable {
    /// The largest difference of any value of an output from the stored one, and the largest that is allowed.
    public struct Distance: Equatable, Sendable {
        public let output: String
        public let largest: Double
        public let allowed: Double
        public var passed: Bool { largest <= allowed }
    }

    /// How this device's own decoder reads the file.
    public struct Decoding: Equatable, Sendable {
        /// Of the decoded pixels from the stored ones, mean and absolute, in levels of 255; and what is allowed.
        public let meanDifference: Double
        public let allowed: Double
        /// Whether the decoded image gets the stored answer's class; nil where two classes are too close to tell, and
        /// for models without classes.
        public let sameClass: Bool?
        public var passed: Bool { meanDifference <= allowed && sameClass != false }
    }

    public let file: String
    /// Whether resize and crop give the stored tensor, byte for byte.
    public let sameTensor: Bool
    public let distances: [Distance]
    /// nil where no decoder was given.
    public let decoding: Decoding?

    public var id: String { file }
    public var passed: Bool {
        sameTensor && distances.allSatisfy(\.passed) && decoding.map(\.passed) ?? true
    }
}

extension Classifier {
    /// Replays golden/ through the path that an app takes: file, pixels, resize and crop, this artifact, classes.
    ///
    /// The artifact's distance is measured on the stored pixels, as `cspedge verify` does, because decoders of JPEG may
    /// differ: by a mean of 1 level at most (docs/bundle.md, step 7), PNG not at all.
    public func selfTest(decode: (@Sendable (Data) throws -> RGBImage)?) throws -> [SelfTestRow] {
        let manifest = bundle.manifest
        let stored = try zip(artifact.golden, manifest.outputs).map { try bundle.goldenRows($0, $1) }
        return try manifest.goldenImages.enumerated().map { index, image in
            let golden = stored.map { $0[index] }
            let rgb = try bundle.goldenRGB(image)
            let tensor = try bundle.goldenTensor(image)
            let answers = try run(manifest.preprocess.input(tensor))
            let distances = zip(artifact.golden, zip(answers, golden)).map { entry, pair in
                let off = difference(pair.0, pair.1)
                return SelfTestRow.Distance(output: entry.output, largest: off, allowed: entry.maxAbs)
            }
            return SelfTestRow(
                file: image.file, sameTensor: try manifest.preprocess.tensor(rgb) == tensor, distances: distances,
                decoding: try decode.map { try decoding(image, rgb, golden, $0) })
        }
    }

    private func decoding(
        _ image: GoldenImage, _ rgb: RGBImage, _ golden: [[Float]], _ decode: @Sendable (Data) throws -> RGBImage
    ) throws -> SelfTestRow.Decoding {
        let decoded = try decode(try bundle.read(image.file))
        let allowed = image.file.hasSuffix(".png") ? 0.0 : 1.0
        let mean = meanDifference(decoded, rgb)
        let answer = try classify(decoded, count: 1)
        let logits = zip(bundle.manifest.outputs, zip(golden, artifact.golden)).first { $0.0.values == "logits" }?.1
        let expected = logits.flatMap { clearWinner($0.0, margin: 2 * $0.1.maxAbs) }
        return SelfTestRow.Decoding(
            meanDifference: mean, allowed: allowed, sameClass: expected.map { $0 == answer.top.first?.index })
    }
}

/// Infinite where the sizes differ.
func meanDifference(_ image: RGBImage, _ other: RGBImage) -> Double {
    guard image.width == other.width, image.height == other.height, !image.pixels.isEmpty else { return .infinity }
    let sum = zip(image.pixels, other.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
    return Double(sum) / Double(image.pixels.count)
}

/// The index of the largest value, if it leads by more than the margin.
func clearWinner(_ values: [Float], margin: Double) -> Int? {
    let order = values.indices.sorted { values[$0] > values[$1] }
    guard let first = order.first else { return nil }
    guard let second = order.dropFirst().first else { return first }
    return Double(values[first]) - Double(values[second]) > margin ? first : nil
}
