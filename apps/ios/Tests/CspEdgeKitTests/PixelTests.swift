import CspEdgeCore
import XCTest

@testable import CspEdgeKit

final class PixelTests: XCTestCase {
    /// One pixel of red 10, green 20, blue 30 (or grey 7), alpha 99, in every layout.
    func testEveryLayoutGivesItsPixelAndDropsAlpha() throws {
        let layouts: [(PixelOrder, [UInt8], [UInt8])] = [
            (.rgb, [10, 20, 30], [10, 20, 30]), (.rgbx, [10, 20, 30, 99], [10, 20, 30]),
            (.xrgb, [99, 10, 20, 30], [10, 20, 30]), (.bgrx, [30, 20, 10, 99], [10, 20, 30]),
            (.xbgr, [99, 30, 20, 10], [10, 20, 30]), (.gray, [7], [7, 7, 7]), (.grayx, [7, 99], [7, 7, 7]),
            (.xgray, [99, 7], [7, 7, 7]),
        ]
        for (order, pixel, rgb) in layouts {
            // two rows of two, with a gap of three bytes behind the first
            let bytes = pixel + pixel + [1, 2, 3] + pixel + pixel
            let raw = RawPixels(width: 2, height: 2, order: order, bytesPerRow: 2 * pixel.count + 3)
            let image = try bytes.withUnsafeBytes { try raw.image($0) }
            XCTAssertEqual(image.pixels, rgb + rgb + rgb + rgb, "\(order)")
            let cut = RawPixels(width: 2, height: 3, order: order, bytesPerRow: 2 * pixel.count + 3)
            XCTAssertThrowsError(try bytes.withUnsafeBytes { try cut.image($0) }, "\(order)")
        }
    }

    func testLayoutsByWhatCoreGraphicsSays() {
        XCTAssertEqual(PixelOrder(colors: 3, extra: .first, bitsPerPixel: 32, littleEndian: true), .bgrx)
        XCTAssertEqual(PixelOrder(colors: 3, extra: .last, bitsPerPixel: 32, littleEndian: false), .rgbx)
        XCTAssertEqual(PixelOrder(colors: 1, extra: .none, bitsPerPixel: 8, littleEndian: false), .gray)
        XCTAssertNil(PixelOrder(colors: 4, extra: .none, bitsPerPixel: 32, littleEndian: false))
        XCTAssertNil(PixelOrder(colors: 3, extra: .none, bitsPerPixel: 32, littleEndian: false))
    }

    func testAlphaIsDividedOut() {
        var pixels: [UInt8] = []
        for alpha in UInt8.min...UInt8.max {
            for color in [0, 50, 128, 255] {
                pixels += [UInt8((color * Int(alpha) + 127) / 255), 0, 0, alpha]
            }
        }
        divideByAlpha(&pixels)
        for alpha in 1...255 {
            for (index, color) in [0, 50, 128, 255].enumerated() {
                let found = Int(pixels[16 * alpha + 4 * index])
                // half a level of a product is 255 / alpha / 2 levels of the colour
                XCTAssertLessThanOrEqual(abs(found - color), 127 / alpha + 1, "\(color) at alpha \(alpha)")
            }
        }
    }

    func testOrientationsAndBack() throws {
        let image = try RGBImage(width: 3, height: 2, pixels: (0..<18).map { UInt8($0) })
        let inverse: [Orientation: Orientation] = [.right: .left, .left: .right]
        for orientation in Orientation.allCases {
            let back = image.upright(orientation).upright(inverse[orientation] ?? orientation)
            XCTAssertEqual(back, image, "\(orientation)")
        }
    }
}
