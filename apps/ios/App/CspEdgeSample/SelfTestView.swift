import CspEdgeKit
import SwiftUI

/// golden/ on this device: how far each image's answer is from the stored one, against what is allowed.
struct SelfTestView: View {
    let model: SampleModel

    private var passed: Int { model.rows.filter(\.passed).count }

    var body: some View {
        NavigationStack {
            List {
                Section {
                    Button("Run the self-test", systemImage: "play") {
                        Task { await model.selfTest() }
                    }
                    .disabled(model.isWorking)
                    if model.isWorking { ProgressView("Running") }
                }
                if let failure = model.failure {
                    Section { FailureView(failure: failure) }
                }
                if !model.rows.isEmpty {
                    Section("\(passed) of \(model.rows.count) passed") {
                        ForEach(model.rows) { row in
                            SelfTestRowView(row: row)
                        }
                    }
                }
            }
            .navigationTitle("Self-test")
        }
    }
}

struct SelfTestRowView: View {
    let row: SelfTestRow

    private func number(_ value: Double) -> String {
        value.formatted(.number.precision(.significantDigits(3)))
    }

    private var lines: [String] {
        var lines = row.distances.map {
            "\($0.output): off by \(number($0.largest)), \(number($0.allowed)) allowed"
        }
        if !row.sameTensor { lines.append("resize and crop differ") }
        if let decoding = row.decoding {
            let levels = "decoder: off by \(number(decoding.meanDifference)) levels"
            lines.append("\(levels), \(number(decoding.allowed)) allowed")
            if decoding.sameClass == false { lines.append("the decoded file gets another class") }
        }
        return lines
    }

    var body: some View {
        HStack(alignment: .firstTextBaseline) {
            Image(systemName: row.passed ? "checkmark.circle" : "xmark.circle")
                .foregroundStyle(row.passed ? .green : .red)
            VStack(alignment: .leading) {
                Text(row.file)
                ForEach(lines, id: \.self) { line in
                    Text(line)
                        .font(.footnote)
                        .foregroundStyle(.secondary)
                }
            }
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel("\(row.file) \(row.passed ? "passed" : "failed"); \(lines.joined(separator: "; "))")
    }
}
