#if canImport(CoreGraphics) && canImport(ImageIO)
    import CoreGraphics
    import CspEdgeCore
    import Foundation
    import ImageIO

    /// Image files and Core Graphics images to upright RGB of 8 bits: what cspedge's own decoder gives, on Apple's systems.
    ///
    /// Pixels of 8 bits in RGB or grey are taken as they are decoded: alpha dropped and not blended, grey repeated, no
    /// colour profile applied, as the pipeline does it. All others are drawn in sRGB: wide gamuts (the camera's Display
    /// P3), palettes, CMYK, 16 bits and floating point.
    public struct ImageDecoder: Sendable {
        private let preprocess: Preprocess

        /// The contract says how large an image may be.
        public init(_ preprocess: Preprocess) {
            self.preprocess = preprocess
        }

        /// The first image of a file, turned upright by its EXIF orientation.
        ///
        /// KitError imageUnreadable; Refusal image-empty, image-too-large, before any pixel is decoded.
        public func decode(_ data: Data) throws -> RGBImage {
            let options = [kCGImageSourceShouldCache: false] as CFDictionary
            guard let source = CGImageSourceCreateWithData(data as CFData, options),
                CGImageSourceGetCount(source) > 0
            else { throw KitError.imageUnreadable("it is no image file that this system knows") }
            let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, options) as? [CFString: Any] ?? [:]
            if let width = properties[kCGImagePropertyPixelWidth] as? Int,
                let height = properties[kCGImagePropertyPixelHeight] as? Int
            {
                try preprocess.checkSize(width: width, height: height)
            }
            guard let image = CGImageSourceCreateImageAtIndex(source, 0, options),
                CGImageSourceGetStatusAtIndex(source, 0) == .statusComplete
            else { throw KitError.imageUnreadable("it is damaged or cut off") }
            let orientation = (properties[kCGImagePropertyOrientation] as? Int).flatMap(Orientation.init) ?? .up
            return try decode(image, orientation: orientation)
        }

        /// The pixels of an image, turned upright. Refusal image-empty, image-too-large; KitError imageUnreadable.
        public func decode(_ image: CGImage, orientation: Orientation = .up) throws -> RGBImage {
            try preprocess.checkSize(width: image.width, height: image.height)
            return try (asDecoded(image) ?? drawn(image)).upright(orientation)
        }

        /// The pixels without a conversion, or nil where they need one.
        private func asDecoded(_ image: CGImage) throws -> RGBImage? {
            guard image.bitsPerComponent == 8, !image.bitmapInfo.contains(.floatComponents),
                let order = Self.order(image), let data = image.dataProvider?.data
            else { return nil }
            let raw = RawPixels(
                width: image.width, height: image.height, order: order, bytesPerRow: image.bytesPerRow)
            return try (data as Data).withUnsafeBytes { try raw.image($0) }
        }

        private static func order(_ image: CGImage) -> PixelOrder? {
            guard let space = image.colorSpace, !space.isWideGamutRGB else { return nil }
            let colors: Int
            switch space.model {
            case .rgb: colors = 3
            case .monochrome: colors = 1
            default: return nil
            }
            let extra: PixelOrder.Extra
            switch image.alphaInfo {
            case .none: extra = .none
            case .first, .noneSkipFirst: extra = .first
            case .last, .noneSkipLast: extra = .last
            default: return nil  // premultiplied, or alpha alone
            }
            let littleEndian: Bool
            switch image.byteOrderInfo {
            case .orderDefault, .order32Big: littleEndian = false
            case .order32Little: littleEndian = true
            default: return nil
            }
            return PixelOrder(
                colors: colors, extra: extra, bitsPerPixel: image.bitsPerPixel, littleEndian: littleEndian)
        }

        /// The pixels in sRGB, by Core Graphics; alpha is divided out again, for a context has no straight alpha.
        private func drawn(_ image: CGImage) throws -> RGBImage {
            let (width, height) = (image.width, image.height)
            var rgba = [UInt8](repeating: 0, count: 4 * width * height)
            let done = rgba.withUnsafeMutableBytes { buffer in
                guard let space = CGColorSpace(name: CGColorSpace.sRGB),
                    let context = CGContext(
                        data: buffer.baseAddress, width: width, height: height, bitsPerComponent: 8,
                        bytesPerRow: 4 * width, space: space, bitmapInfo: CGImageAlphaInfo.premultipliedLast.rawValue)
                else { return false }
                context.interpolationQuality = .none
                context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
                return true
            }
            guard done else { throw KitError.imageUnreadable("its pixels cannot be converted to sRGB") }
            divideByAlpha(&rgba)
            return try RGBImage(width: width, height: height, rgbx: rgba, bytesPerRow: 4 * width)
        }
    }

    extension Classifier {
        /// The answer for an image file: decoded, turned upright, classified.
        public func classify(_ data: Data, count: Int = 5) throws -> Answer {
            try classify(try ImageDecoder(bundle.manifest.preprocess).decode(data), count: count)
        }

        /// The answer for an image in memory.
        public func classify(_ image: CGImage, orientation: Orientation = .up, count: Int = 5) throws -> Answer {
            let decoder = ImageDecoder(bundle.manifest.preprocess)
            return try classify(try decoder.decode(image, orientation: orientation), count: count)
        }

        /// Replays golden/ with this system's own decoder.
        public func selfTest() throws -> [SelfTestRow] {
            let decoder = ImageDecoder(bundle.manifest.preprocess)
            return try selfTest { try decoder.decode($0) }
        }
    }
#endif
