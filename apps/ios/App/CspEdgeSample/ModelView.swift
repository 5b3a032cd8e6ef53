import CspEdgeCore
import SwiftUI

/// Which bundle, artifact and runtime this is, and the choice of another.
struct ModelView: View {
    let model: SampleModel
    @State private var chosen = ""

    var body: some View {
        NavigationStack {
            List {
                if let artifact = model.artifact {
                    Section("Runs now") {
                        LabeledContent("Artifact", value: artifact.label)
                        LabeledContent("Runtime", value: artifact.backend)
                        LabeledContent("Made with", value: "\(artifact.runtimeName) \(artifact.runtimeVersion)")
                        LabeledContent("Verdict", value: artifact.verdict)
                        if let version = model.version {
                            LabeledContent("Bundle", value: version.description)
                        }
                    }
                }
                Section("Artifacts for this device") {
                    Picker("Artifact", selection: $chosen) {
                        ForEach(model.artifacts, id: \.label) { artifact in
                            Text(artifact.label).tag(artifact.label)
                        }
                    }
                    .disabled(model.isWorking)
                }
                if let notTaken = model.notTaken {
                    Section("A newer bundle was not taken") { Text(notTaken) }
                }
            }
            .navigationTitle("Model")
            .task { chosen = model.artifact?.label ?? "" }
            .onChange(of: chosen) { _, label in
                Task {
                    await model.choose(label)
                    chosen = model.artifact?.label ?? ""  // the one before, where the choice does not open
                }
            }
        }
    }
}
