import SwiftUI

@main
struct CspEdgeSampleApp: App {
    @State private var model = SampleModel()

    var body: some Scene {
        WindowGroup {
            RootView(model: model)
                .task { await model.start() }
        }
    }
}

struct RootView: View {
    let model: SampleModel

    var body: some View {
        switch model.phase {
        case .loading:
            ProgressView("Checking the models")
        case .failed(let failure):
            VStack {
                FailureView(failure: failure)
                Button("Try again", systemImage: "arrow.clockwise") {
                    Task { await model.start() }
                }
            }
        case .ready:
            TabView {
                ClassifyView(model: model)
                    .tabItem { Label("Classify", systemImage: "photo") }
                SelfTestView(model: model)
                    .tabItem { Label("Self-test", systemImage: "checkmark.seal") }
                ModelView(model: model)
                    .tabItem { Label("Model", systemImage: "shippingbox") }
            }
        }
    }
}

struct FailureView: View {
    let failure: Failure

    var body: some View {
        VStack(spacing: 8) {
            Image(systemName: "exclamationmark.triangle")
                .accessibilityHidden(true)
            Text(failure.message)
            if let advice = failure.advice {
                Text(advice)
                    .font(.footnote)
                    .foregroundStyle(.secondary)
            }
        }
        .multilineTextAlignment(.center)
        .padding()
        .accessibilityElement(children: .combine)
    }
}
