@preconcurrency import AVFoundation
import SwiftUI
import UIKit

/// The camera's picture and a shutter; hands over the photo's file and closes.
struct CameraView: View {
    let onPhoto: (Data) -> Void
    @Environment(\.dismiss) private var dismiss
    @State private var camera = Camera()
    @State private var failure: Failure?

    var body: some View {
        ZStack(alignment: .bottom) {
            PreviewView(source: camera.preview)
                .ignoresSafeArea()
                .accessibilityLabel("Camera")
            if let failure {
                FailureView(failure: failure)
                    .background(.regularMaterial)
                    .frame(maxHeight: .infinity)
            }
            HStack {
                Button("Cancel", role: .cancel) { dismiss() }
                Spacer()
                Button("Take the photo", systemImage: "circle.inset.filled") {
                    Task { await shoot() }
                }
                .labelStyle(.iconOnly)
                .font(.largeTitle)
                .disabled(failure != nil)
                .accessibilityLabel("Take the photo")
            }
            .padding()
            .background(.regularMaterial)
        }
        .task {
            do { try await camera.start() } catch { failure = Failure(error) }
        }
        .onDisappear {
            Task { await camera.stop() }
        }
    }

    private func shoot() async {
        do {
            onPhoto(try await camera.photo())
            dismiss()
        } catch {
            failure = Failure(error)
        }
    }
}

/// What the session sees. The app is upright only, so the picture is turned by a fixed quarter.
private struct PreviewView: UIViewRepresentable {
    let source: PreviewSource

    final class LayerView: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
    }

    func makeUIView(context: Context) -> LayerView {
        let view = LayerView()
        if let layer = view.layer as? AVCaptureVideoPreviewLayer {
            layer.session = source.session
            layer.videoGravity = .resizeAspectFill
        }
        return view
    }

    func updateUIView(_ view: LayerView, context: Context) {
        let connection = (view.layer as? AVCaptureVideoPreviewLayer)?.connection
        if let connection, connection.isVideoRotationAngleSupported(90) { connection.videoRotationAngle = 90 }
    }
}
