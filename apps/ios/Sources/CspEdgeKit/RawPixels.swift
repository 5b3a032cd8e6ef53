import CspEdgeCore

/// The order of a pixel's bytes in memory; `x` is alpha or padding, which is dropped and not blended, as the pipeline
/// does it.
enum PixelOrder: Equatable, Sendable {
    case rgb, rgbx, xrgb, bgrx, xbgr, gray, grayx, xgray

    /// Where alpha or padding stands in a pixel.
    enum Extra: Equatable, Sendable {
        case none, first, last
    }

    /// nil for a layout that is none of these.
    init?(colors: Int, extra: Extra, bitsPerPixel: Int, littleEndian: Bool) {
        switch (colors, extra, bitsPerPixel, littleEndian) {
        case (3, .none, 24, false): self = .rgb
        case (3, .last, 32, false): self = .rgbx
        case (3, .first, 32, false): self = .xrgb
        case (3, .first, 32, true): self = .bgrx
        case (3, .last, 32, true): self = .xbgr
        case (1, .none, 8, false): self = .gray
        case (1, .last, 16, false): self = .grayx
        case (1, .first, 16, false): self = .xgray
        default: return nil
        }
    }

    var bytesPerPixel: Int {
        switch self {
        case .rgb: 3
        case .rgbx, .xrgb, .bgrx, .xbgr: 4
        case .gray: 1
        case .grayx, .xgray: 2
        }
    }

    /// Where red, green and blue are in a pixel.
    var offsets: (red: Int, green: Int, blue: Int) {
        switch self {
        case .rgb, .rgbx: (0, 1, 2)
        case .xrgb: (1, 2, 3)
        case .bgrx: (2, 1, 0)
        case .xbgr: (3, 2, 1)
        case .gray, .grayx: (0, 0, 0)
        case .xgray: (1, 1, 1)
        }
    }
}

/// Decoded pixels as an image library holds them: 8 bits a component, straight alpha, rows of `bytesPerRow`.
struct RawPixels {
    let width: Int
    let height: Int
    let order: PixelOrder
    let bytesPerRow: Int

    /// The pixels' R, G and B, byte for byte; grey repeated. UsageError where `bytes` are too few.
    func image(_ bytes: UnsafeRawBufferPointer) throws -> RGBImage {
        let row = width * order.bytesPerPixel
        guard width >= 0, height >= 0, bytesPerRow >= row,
            height == 0 || bytes.count >= bytesPerRow * (height - 1) + row
        else {
            throw UsageError("\(width) x \(height) pixels do not fit in \(bytes.count) bytes, \(bytesPerRow) a row")
        }
        let (red, green, blue) = order.offsets
        let step = order.bytesPerPixel
        let pixels = [UInt8](unsafeUninitializedCapacity: 3 * width * height) { buffer, count in
            for y in 0..<height {
                for x in 0..<width {
                    let at = y * bytesPerRow + x * step
                    buffer[count] = bytes[at + red]
                    buffer[count + 1] = bytes[at + green]
                    buffer[count + 2] = bytes[at + blue]
                    count += 3
                }
            }
        }
        return RGBImage(unchecked: pixels, width: width, height: height)
    }
}

/// Divides R, G and B by alpha, to the nearest level, in pixels of four bytes, alpha last. Without alpha's weight
/// nothing is left of a colour: where alpha is 0 the pixel is black.
func divideByAlpha(_ rgba: inout [UInt8]) {
    for at in stride(from: 0, to: rgba.count - 3, by: 4) {
        let alpha = Int(rgba[at + 3])
        if alpha == 0 || alpha == 255 { continue }
        for channel in at..<(at + 3) {
            rgba[channel] = UInt8(min(255, (Int(rgba[channel]) * 255 + alpha / 2) / alpha))
        }
    }
}
