@_exported import Foundation
import UIKit

public struct AVMediaType: Sendable {
    public static let video = AVMediaType()
}

open class AVCaptureInput: NSObject {}
open class AVCaptureOutput: NSObject {
    public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { fatalError() }
}

public class AVCaptureConnection: NSObject {
    public var videoRotationAngle: Double = 0
    public func isVideoRotationAngleSupported(_ angle: Double) -> Bool { fatalError() }
}

public class AVCaptureDevice: NSObject {
    public class func requestAccess(for mediaType: AVMediaType) async -> Bool { fatalError() }
    public class func `default`(for mediaType: AVMediaType) -> AVCaptureDevice? { fatalError() }

    public class RotationCoordinator: NSObject {
        public init(device: AVCaptureDevice, previewLayer: CALayer?) { fatalError() }
        public var videoRotationAngleForHorizonLevelCapture: Double { fatalError() }
    }
}

public class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws { fatalError() }
}

public class AVCaptureSession: NSObject {
    public struct Preset: Sendable {
        public static let photo = Preset()
    }
    public var sessionPreset: Preset = .photo
    public var inputs: [AVCaptureInput] { fatalError() }
    public func startRunning() {}
    public func stopRunning() {}
    public func beginConfiguration() {}
    public func commitConfiguration() {}
    public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() }
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() }
    public func addInput(_ input: AVCaptureInput) {}
    public func addOutput(_ output: AVCaptureOutput) {}
}

public class AVCapturePhoto: NSObject {
    public func fileDataRepresentation() -> Data? { fatalError() }
}

public class AVCapturePhotoSettings: NSObject {}
public class AVCaptureResolvedPhotoSettings: NSObject {}

public protocol AVCapturePhotoCaptureDelegate: AnyObject {
    func photoOutput(
        _ output: AVCapturePhotoOutput, didFinishProcessingPhoto photo: AVCapturePhoto, error: (any Error)?)
    func photoOutput(
        _ output: AVCapturePhotoOutput, didFinishCaptureFor resolvedSettings: AVCaptureResolvedPhotoSettings,
        error: (any Error)?)
}

public class AVCapturePhotoOutput: AVCaptureOutput {
    public func capturePhoto(with settings: AVCapturePhotoSettings, delegate: any AVCapturePhotoCaptureDelegate) {}
}

public enum AVLayerVideoGravity: Sendable {
    case resizeAspectFill
}

@MainActor public class AVCaptureVideoPreviewLayer: CALayer {
    public var session: AVCaptureSession?
    public var videoGravity: AVLayerVideoGravity = .resizeAspectFill
    public var connection: AVCaptureConnection? { fatalError() }
}
