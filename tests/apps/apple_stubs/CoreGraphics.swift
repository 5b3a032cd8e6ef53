// Declarations of Apple's that the app's sources use, for type-checking them where there is no Apple SDK. No behaviour.
@_exported import Foundation

public struct CGBitmapInfo: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static var floatComponents: CGBitmapInfo { fatalError() }
}

public enum CGImageAlphaInfo: UInt32, Sendable {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly
}

public enum CGImageByteOrderInfo: UInt32, Sendable {
    case orderMask, orderDefault, order16Little, order32Little, order16Big, order32Big
}

public enum CGColorSpaceModel: Int32, Sendable {
    case unknown, monochrome, rgb, cmyk, lab, deviceN, indexed, pattern, XYZ
}

public enum CGInterpolationQuality: Int32, Sendable {
    case `default`, none, low, medium, high
}

public class CGColorSpace {
    public class var sRGB: CFString { fatalError() }
    public init?(name: CFString) { fatalError() }
    public var model: CGColorSpaceModel { fatalError() }
    public var isWideGamutRGB: Bool { fatalError() }
}

public class CGDataProvider {
    public var data: CFData? { fatalError() }
}

public class CGImage: @unchecked Sendable {
    public var width: Int { fatalError() }
    public var height: Int { fatalError() }
    public var bitsPerComponent: Int { fatalError() }
    public var bitsPerPixel: Int { fatalError() }
    public var bytesPerRow: Int { fatalError() }
    public var colorSpace: CGColorSpace? { fatalError() }
    public var alphaInfo: CGImageAlphaInfo { fatalError() }
    public var byteOrderInfo: CGImageByteOrderInfo { fatalError() }
    public var bitmapInfo: CGBitmapInfo { fatalError() }
    public var dataProvider: CGDataProvider? { fatalError() }
}

public class CGContext {
    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) { fatalError() }
    public var interpolationQuality: CGInterpolationQuality {
        get { fatalError() }
        set {}
    }
    public func draw(_ image: CGImage, in rect: CGRect) {}
}

// Toll-free bridging, which the Objective-C runtime does: casts between these and Foundation's types always hold.
public typealias CFString = NSString
public typealias CFData = NSData
public typealias CFDictionary = NSDictionary
