// AVFoundation says of few of its classes whether they are Sendable.
@preconcurrency import AVFoundation
import Foundation
import os

enum CameraError: LocalizedError {
    case notAllowed, notThere, noPhoto

    var errorDescription: String? {
        switch self {
        case .notAllowed: "This app may not use the camera."
        case .notThere: "This device has no camera that the app can use."
        case .noPhoto: "The camera gave no photo."
        }
    }

    var recoverySuggestion: String? {
        switch self {
        case .notAllowed: "Allow it in Settings, Privacy, Camera."
        case .notThere: "Choose a photo from the library."
        case .noPhoto: "Try again."
        }
    }
}

/// A session for a preview layer.
///
/// `@unchecked Sendable`: the layer only shows the session, on the main thread, which AVFoundation allows while another
/// thread configures and runs it; the camera below does that alone.
struct PreviewSource: @unchecked Sendable {
    let session: AVCaptureSession
}

/// The back camera: a session to preview, and photos as files.
actor Camera {
    nonisolated let preview: PreviewSource
    private let session: AVCaptureSession
    private let output = AVCapturePhotoOutput()
    private var rotation: AVCaptureDevice.RotationCoordinator?
    private var receivers: Set<PhotoReceiver> = []

    init() {
        let session = AVCaptureSession()
        self.session = session
        preview = PreviewSource(session: session)
    }

    /// CameraError notAllowed, notThere; AVFoundation's own errors.
    func start() async throws {
        guard await AVCaptureDevice.requestAccess(for: .video) else { throw CameraError.notAllowed }
        if session.inputs.isEmpty { try configure() }
        session.startRunning()
    }

    func stop() { session.stopRunning() }

    /// A photo as the file that the camera writes, with its orientation.
    func photo() async throws -> Data {
        if let angle = rotation?.videoRotationAngleForHorizonLevelCapture,
            let connection = output.connection(with: .video), connection.isVideoRotationAngleSupported(angle)
        {
            connection.videoRotationAngle = angle
        }
        let receiver = PhotoReceiver()
        receivers.insert(receiver)
        defer { receivers.remove(receiver) }
        return try await withCheckedThrowingContinuation { continuation in
            receiver.wait(continuation)
            output.capturePhoto(with: AVCapturePhotoSettings(), delegate: receiver)
        }
    }

    private func configure() throws {
        guard let device = AVCaptureDevice.default(for: .video) else { throw CameraError.notThere }
        let input = try AVCaptureDeviceInput(device: device)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .photo
        guard session.canAddInput(input), session.canAddOutput(output) else { throw CameraError.notThere }
        session.addInput(input)
        session.addOutput(output)
        rotation = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: nil)
    }
}

/// Waits for one photo. AVFoundation calls it on a queue of its own, and may end a capture without a photo.
private final class PhotoReceiver: NSObject, AVCapturePhotoCaptureDelegate, Sendable {
    private let waiting = OSAllocatedUnfairLock<CheckedContinuation<Data, any Error>?>(initialState: nil)

    func wait(_ continuation: CheckedContinuation<Data, any Error>) {
        waiting.withLock { $0 = continuation }
    }

    func photoOutput(
        _ output: AVCapturePhotoOutput, didFinishProcessingPhoto photo: AVCapturePhoto, error: (any Error)?
    ) {
        if let file = photo.fileDataRepresentation() {
            end(.success(file))
        } else {
            end(.failure(error ?? CameraError.noPhoto))
        }
    }

    func photoOutput(
        _ output: AVCapturePhotoOutput, didFinishCaptureFor resolvedSettings: AVCaptureResolvedPhotoSettings,
        error: (any Error)?
    ) {
        end(.failure(error ?? CameraError.noPhoto))
    }

    /// The first call counts.
    private func end(_ result: Result<Data, any Error>) {
        let continuation = waiting.withLock { waiting in
            defer { waiting = nil }
            return waiting
        }
        continuation?.resume(with: result)
    }
}
