import Foundation

/// Pillow's resampling filters.
public enum Interpolation: String, CaseIterable, Sendable {
    case nearest, box, bilinear, hamming, bicubic, lanczos

    /// In source pixels at scale 1.
    var support: Double {
        switch self {
        case .nearest: 0
        case .box: 0.5
        case .bilinear, .hamming: 1
        case .bicubic: 2
        case .lanczos: 3
        }
    }

    // The order of operations is Pillow's: another one rounds some coefficients to other integers.
    func weight(_ signed: Double) -> Double {
        let x = abs(signed)
        switch self {
        case .nearest: return 0  // has no weights: `resample` does not come here
        case .box: return signed > -0.5 && signed <= 0.5 ? 1 : 0
        case .bilinear: return x < 1 ? 1 - x : 0
        case .hamming:
            if x == 0 { return 1 }
            if x >= 1 { return 0 }
            // Pillow writes these two constants as floats
            return Self.sinc(x) * (Double(Float(0.54)) + Double(Float(0.46)) * cos(x * .pi))
        case .bicubic:
            let a = -0.5
            if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
            return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
        case .lanczos: return signed >= -3 && signed < 3 ? Self.sinc(signed) * Self.sinc(signed / 3) : 0
        }
    }

    private static func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }
}

private let bits: Int32 = 22

/// One axis of a resize: for each position of `span`, its first source sample and integer coefficients.
private struct Axis {
    var first: [Int] = []
    var coefficients: [[Int32]] = []

    init(old: Int, new: Int, span: Range<Int>, filter: Interpolation) {
        let scale = Double(old) / Double(new)
        let stretch = max(scale, 1)
        let support = filter.support * stretch
        let inverse = 1 / stretch
        for position in span {
            let center = (Double(position) + 0.5) * scale
            let low = max(Int(center - support + 0.5), 0)
            let high = min(Int(center + support + 0.5), old)
            first.append(low)
            coefficients.append(
                Self.quantized((low..<high).map { filter.weight((Double($0) - center + 0.5) * inverse) }))
        }
    }

    private static func quantized(_ weights: [Double]) -> [Int32] {
        let sum = weights.reduce(0, +)
        return weights.map {
            let weight = (sum == 0 ? $0 : $0 / sum) * Double(1 << bits)
            return Int32(weight < 0 ? weight - 0.5 : weight + 0.5)
        }
    }

    /// The source samples that are needed.
    var source: Range<Int> {
        let from = first.min() ?? 0
        return from..<(zip(first, coefficients).map { $0 + $1.count }.max() ?? from)
    }
}

/// The part (`rows`, `columns`) of `image` resized to `width` x `height`, equal in every byte to Pillow's
/// `Image.resize`: two passes with 22-bit coefficients, each rounded to 8 bits; only what the part needs is computed.
func resample(
    _ image: RGBImage, width: Int, height: Int, rows: Range<Int>, columns: Range<Int>, filter: Interpolation,
    widthFirst: Bool
) -> RGBImage {
    if filter == .nearest { return nearest(image, width: width, height: height, rows: rows, columns: columns) }
    let across = width == image.width ? nil : Axis(old: image.width, new: width, span: columns, filter: filter)
    let down = height == image.height ? nil : Axis(old: image.height, new: height, span: rows, filter: filter)
    let sourceRows = down?.source ?? rows
    let sourceColumns = across?.source ?? columns
    var result = part(image, rows: sourceRows, columns: sourceColumns)
    // From Pillow 13 on (its #9549); the rounding between the passes tells the orders apart.
    let lost = image.height - height
    let downFirst = !widthFirst && lost > 0 && lost > 2 * (image.width - width)
    if let down, downFirst { result = vertical(result, down, sourceRows.lowerBound) }
    if let across { result = horizontal(result, across, sourceColumns.lowerBound) }
    if let down, !downFirst { result = vertical(result, down, sourceRows.lowerBound) }
    return result
}

/// A window of an image; the image itself where it is all of it.
private func part(_ image: RGBImage, rows: Range<Int>, columns: Range<Int>) -> RGBImage {
    if rows.count == image.height && columns.count == image.width { return image }
    var out: [UInt8] = []
    out.reserveCapacity(3 * rows.count * columns.count)
    for row in rows {
        let start = 3 * (row * image.width + columns.lowerBound)
        out.append(contentsOf: image.pixels[start..<(start + 3 * columns.count)])
    }
    return RGBImage(unchecked: out, width: columns.count, height: rows.count)
}

private func horizontal(_ image: RGBImage, _ axis: Axis, _ offset: Int) -> RGBImage {
    let width = axis.first.count
    var out = [UInt8](repeating: 0, count: 3 * width * image.height)
    for x in 0..<width {
        let start = axis.first[x] - offset
        for y in 0..<image.height {
            blend(image.pixels, 3 * (y * image.width + start), 3, axis.coefficients[x], &out, 3 * (y * width + x))
        }
    }
    return RGBImage(unchecked: out, width: width, height: image.height)
}

private func vertical(_ image: RGBImage, _ axis: Axis, _ offset: Int) -> RGBImage {
    let height = axis.first.count
    let stride = 3 * image.width
    var out = [UInt8](repeating: 0, count: stride * height)
    for y in 0..<height {
        let start = (axis.first[y] - offset) * stride
        for x in 0..<image.width {
            blend(image.pixels, start + 3 * x, stride, axis.coefficients[y], &out, y * stride + 3 * x)
        }
    }
    return RGBImage(unchecked: out, width: image.width, height: height)
}

private func blend(
    _ source: [UInt8], _ start: Int, _ step: Int, _ coefficients: [Int32], _ out: inout [UInt8], _ at: Int
) {
    var red: Int32 = 1 << (bits - 1)
    var green = red
    var blue = red
    var index = start
    for coefficient in coefficients {
        red &+= Int32(source[index]) &* coefficient
        green &+= Int32(source[index + 1]) &* coefficient
        blue &+= Int32(source[index + 2]) &* coefficient
        index += step
    }
    out[at] = clip8(red)
    out[at + 1] = clip8(green)
    out[at + 2] = clip8(blue)
}

private func clip8(_ sum: Int32) -> UInt8 { UInt8(clamping: sum >> bits) }

private func nearest(_ image: RGBImage, width: Int, height: Int, rows: Range<Int>, columns: Range<Int>) -> RGBImage {
    let down = nearestIndices(old: image.height, new: height)
    let across = nearestIndices(old: image.width, new: width)
    var out: [UInt8] = []
    out.reserveCapacity(3 * rows.count * columns.count)
    for y in rows {
        for x in columns {
            let from = 3 * (down[y] * image.width + across[x])
            out.append(contentsOf: image.pixels[from..<(from + 3)])
        }
    }
    return RGBImage(unchecked: out, width: columns.count, height: rows.count)
}

// The position is a running sum, as in Pillow: a product would round otherwise.
private func nearestIndices(old: Int, new: Int) -> [Int] {
    let scale = Double(old) / Double(new)
    var position = scale * 0.5
    return (0..<new).map { _ in
        defer { position += scale }
        return min(Int(position), old - 1)
    }
}
