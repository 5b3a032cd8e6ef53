/// A decoded image: `pixels` is RGB, 8 bits each, rows from top to bottom without gaps, 3 * width * height bytes.
public struct RGBImage: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public let pixels: [UInt8]

    /// UsageError where the number of bytes is another.
    public init(width: Int, height: Int, pixels: [UInt8]) throws {
        guard width >= 0, height >= 0, pixels.count == 3 * width * height else {
            throw UsageError("an image of \(width) x \(height) pixels does not have \(pixels.count) bytes")
        }
        self.init(unchecked: pixels, width: width, height: height)
    }

    /// From four bytes a pixel, R, G, B and one that is dropped, in rows of `bytesPerRow` (Core Graphics, vImage).
    public init(width: Int, height: Int, rgbx: [UInt8], bytesPerRow: Int) throws {
        guard width >= 0, height >= 0, bytesPerRow >= 4 * width, rgbx.count >= bytesPerRow * height else {
            throw UsageError("\(width) x \(height) pixels do not fit in \(rgbx.count) bytes, \(bytesPerRow) a row")
        }
        var pixels: [UInt8] = []
        pixels.reserveCapacity(3 * width * height)
        for y in 0..<height {
            for x in 0..<width {
                let at = y * bytesPerRow + 4 * x
                pixels.append(contentsOf: rgbx[at..<(at + 3)])
            }
        }
        self.init(unchecked: pixels, width: width, height: height)
    }

    package init(unchecked pixels: [UInt8], width: Int, height: Int) {
        self.width = width
        self.height = height
        self.pixels = pixels
    }
}
