import Foundation

/// How the size after the resize follows from the image's.
public enum ResizeRule: String, Sendable {
    case shorterEdge = "shorter-edge"
    case cover, fit, exact
}

/// The preprocessing contract of a manifest: RGB of any size to uint8 [3, cropHeight, cropWidth].
public struct Preprocess: Equatable, Sendable {
    public let rule: ResizeRule
    public let height: Int
    public let width: Int
    public let interpolation: Interpolation
    /// Whether the resize always goes along the width first, as Pillow before version 13 did.
    public let widthFirst: Bool
    public let cropHeight: Int
    public let cropWidth: Int
    public let pad: [UInt8]
    public let maxPixels: Int

    /// uint8 [3, cropHeight, cropWidth], channels first: byte for byte the pipeline's own tensor.
    ///
    /// Refusal image-empty for a side of 0; image-too-large for more than `maxPixels` pixels, before or after the
    /// resize.
    public func tensor(_ image: RGBImage) throws -> [UInt8] {
        try checkSize(width: image.width, height: image.height)
        let size = try resized(Double(image.width), Double(image.height))
        let window = resample(
            image, width: size.width, height: size.height, rows: Self.window(size.height, cropHeight),
            columns: Self.window(size.width, cropWidth), filter: interpolation,
            widthFirst: widthFirst)
        return planes(window)
    }

    /// The model's input for a tensor: x / 255 in float32.
    public func input(_ tensor: [UInt8]) -> [Float] { tensor.map { Float($0) / 255 } }

    /// Refusal image-empty, image-too-large.
    package func checkSize(width: Int, height: Int) throws {
        if width <= 0 || height <= 0 {
            throw Refusal(.imageEmpty, "the image has \(width) x \(height) pixels; both sides must be above 0")
        }
        let (pixels, overflow) = width.multipliedReportingOverflow(by: height)
        if overflow || pixels > maxPixels { throw tooLarge(Double(width), Double(height)) }
    }

    private func resized(_ w: Double, _ h: Double) throws -> (width: Int, height: Int) {
        var size = (width: Double(width), height: Double(height))
        switch rule {
        case .exact: break
        case .shorterEdge:
            if w <= h {
                size.height = (size.width * h / w).rounded(.down)
            } else {
                size.width = (size.height * w / h).rounded(.down)
            }
        case .cover, .fit:
            let ratios = (h / size.height, w / size.width)
            let ratio = rule == .cover ? min(ratios.0, ratios.1) : max(ratios.0, ratios.1)
            size = ((w / ratio).rounded(.toNearestOrEven), (h / ratio).rounded(.toNearestOrEven))
        }
        if size.width < 1 || size.height < 1 {
            throw Refusal(.imageEmpty, "an image of \(Int(w)) x \(Int(h)) pixels would be resized to nothing")
        }
        if size.width * size.height > Double(maxPixels) { throw tooLarge(w, h) }
        return (Int(size.width), Int(size.height))
    }

    private func tooLarge(_ w: Double, _ h: Double) -> Refusal {
        let size = String(format: "%.0f x %.0f", w, h)
        return Refusal(
            .imageTooLarge,
            "the image has \(size) pixels; at most \(maxPixels) are allowed, before and after the resize")
    }

    /// Where the crop meets the image along one axis, in the image's positions.
    private static func window(_ size: Int, _ crop: Int) -> Range<Int> {
        if size <= crop { return 0..<size }
        let start = Int((Double(size - crop) / 2).rounded(.toNearestOrEven))
        return start..<(start + crop)
    }

    private func planes(_ image: RGBImage) -> [UInt8] {
        let plane = cropHeight * cropWidth
        let top = (cropHeight - image.height) / 2
        let left = (cropWidth - image.width) / 2
        var out = pad.flatMap { [UInt8](repeating: $0, count: plane) }
        for channel in 0..<3 {
            for y in 0..<image.height {
                let row = channel * plane + (top + y) * cropWidth + left
                for x in 0..<image.width {
                    out[row + x] = image.pixels[3 * (y * image.width + x) + channel]
                }
            }
        }
        return out
    }
}
