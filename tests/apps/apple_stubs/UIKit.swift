@_exported import CoreGraphics

@MainActor open class CALayer: NSObject {
    nonisolated override public init() { super.init() }
}

@MainActor open class UIView: NSObject {
    open class var layerClass: AnyClass { fatalError() }
    public var layer: CALayer { fatalError() }
    nonisolated override public init() { super.init() }
}

public final class UIImage: NSObject, @unchecked Sendable {
    public init?(data: Data) { fatalError() }
}

@MainActor open class UIApplication: NSObject {
    public class var shared: UIApplication { fatalError() }
    public var isIdleTimerDisabled: Bool {
        get { fatalError() }
        set {}
    }
}
