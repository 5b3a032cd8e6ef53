import CspEdgeCore

/// How an image is stored, by EXIF's tag 274: what the first row and column of the file are of the upright image.
public enum Orientation: Int, CaseIterable, Sendable {
    case up = 1
    case upMirrored = 2
    case down = 3
    case downMirrored = 4
    case leftMirrored = 5
    case right = 6
    case rightMirrored = 7
    case left = 8

    /// Whether width and height change places.
    var swapsSides: Bool { rawValue >= 5 }

    /// Where the upright image's first pixel is in a stored image, and the steps in pixels along its rows and columns.
    func walk(width: Int, height: Int) -> (start: Int, alongRow: Int, alongColumn: Int) {
        let last = width * height - 1
        return switch self {
        case .up: (0, 1, width)
        case .upMirrored: (width - 1, -1, width)
        case .down: (last, -1, -width)
        case .downMirrored: (last - (width - 1), 1, -width)
        case .leftMirrored: (0, width, 1)
        case .right: (last - (width - 1), -width, 1)
        case .rightMirrored: (last, -width, -1)
        case .left: (width - 1, width, -1)
        }
    }
}

extension RGBImage {
    /// The image as it is meant to be seen: the same pixels as Pillow's `ImageOps.exif_transpose` gives.
    public func upright(_ orientation: Orientation) -> RGBImage {
        if orientation == .up || pixels.isEmpty { return self }
        let walk = orientation.walk(width: width, height: height)
        let size = orientation.swapsSides ? (width: height, height: width) : (width: width, height: height)
        // a photo has tens of millions of bytes: written in place, not appended
        let out = [UInt8](unsafeUninitializedCapacity: pixels.count) { buffer, count in
            for y in 0..<size.height {
                var at = walk.start + y * walk.alongColumn
                for _ in 0..<size.width {
                    for channel in 0..<3 {
                        buffer[count] = pixels[3 * at + channel]
                        count += 1
                    }
                    at += walk.alongRow
                }
            }
        }
        return RGBImage(unchecked: out, width: size.width, height: size.height)
    }
}
