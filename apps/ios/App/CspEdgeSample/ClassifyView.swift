import CspEdgeCore
import CspEdgeKit
import PhotosUI
import SwiftUI
import UIKit

/// An image from the library or the camera, its five likeliest classes, and how long that took.
struct ClassifyView: View {
    let model: SampleModel
    @State private var selection: PhotosPickerItem?
    @State private var image: UIImage?
    @State private var showsCamera = false

    var body: some View {
        NavigationStack {
            List {
                Section { picture }
                if let failure = model.failure {
                    Section { FailureView(failure: failure) }
                } else if let answer = model.answer {
                    answers(answer)
                    LatencySection(latency: model.latency)
                }
            }
            .navigationTitle("Classify")
            .toolbar {
                ToolbarItemGroup(placement: .primaryAction) {
                    PhotosPicker(selection: $selection, matching: .images) {
                        Label("Choose a photo", systemImage: "photo.on.rectangle")
                    }
                    Button("Take a photo", systemImage: "camera") { showsCamera = true }
                }
            }
            .onChange(of: selection) { _, item in
                Task { await load(item) }
            }
            .fullScreenCover(isPresented: $showsCamera) {
                CameraView { file in
                    Task { await show(file) }
                }
            }
        }
    }

    @ViewBuilder private var picture: some View {
        if let image {
            Image(uiImage: image)
                .resizable()
                .scaledToFit()
                .frame(maxHeight: 300)
                .accessibilityLabel("The image that was classified")
        } else {
            Text("Choose a photo or take one.")
                .foregroundStyle(.secondary)
        }
    }

    @ViewBuilder private func answers(_ answer: Answer) -> some View {
        Section("Likeliest classes") {
            if answer.top.isEmpty {
                Text("This model gives features, not classes.")
            }
            ForEach(answer.top, id: \.index) { ranked in
                RankedRow(ranked: ranked)
            }
        }
    }

    private func load(_ item: PhotosPickerItem?) async {
        guard let item else { return }
        do {
            guard let file = try await item.loadTransferable(type: Data.self) else {
                throw KitError.imageUnreadable("the library has no data for it")
            }
            await show(file)
        } catch {
            model.report(error)
        }
    }

    private func show(_ file: Data) async {
        image = UIImage(data: file)
        await model.classify(file)
    }
}

struct RankedRow: View {
    let ranked: Ranked

    private var percent: String { ranked.probability.formatted(.percent.precision(.fractionLength(1))) }

    var body: some View {
        VStack(alignment: .leading) {
            HStack {
                Text(ranked.label)
                Spacer()
                Text(percent)
                    .monospacedDigit()
            }
            ProgressView(value: ranked.probability)
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel("\(ranked.label), \(percent)")
    }
}

struct LatencySection: View {
    let latency: Latency

    var body: some View {
        Section("Median of the last \(latency.count)") {
            row("Resize and crop", latency.preprocess)
            row("Model", latency.model)
        }
    }

    @ViewBuilder private func row(_ part: String, _ duration: Duration?) -> some View {
        if let duration {
            LabeledContent(part, value: "\(duration.milliseconds.formatted(.number.precision(.fractionLength(1)))) ms")
                .accessibilityElement(children: .combine)
        }
    }
}
