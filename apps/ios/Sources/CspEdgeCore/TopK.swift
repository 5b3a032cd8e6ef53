import Foundation

/// One class of an answer: its index, label and probability.
public struct Ranked: Equatable, Sendable {
    public let index: Int
    public let label: String
    public let probability: Double
}

/// Softmax in double precision, the largest logit subtracted first. UsageError for no logits and for NaN.
public func softmax(_ logits: [Float]) throws -> [Double] {
    guard let largest = logits.max(), logits.allSatisfy(\.isFinite) else {
        throw UsageError("logits must be finite and at least one")
    }
    let powers = logits.map { exp(Double($0) - Double(largest)) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

/// The `count` likeliest classes, likeliest first; of equal ones the lower index first. Empty labels: the index.
public func topK(_ logits: [Float], labels: [String], count: Int = 5) throws -> [Ranked] {
    guard labels.isEmpty || labels.count == logits.count else {
        throw UsageError("\(labels.count) labels for \(logits.count) logits")
    }
    guard count >= 1 else { throw UsageError("\(count) classes were asked for") }
    let probabilities = try softmax(logits)
    // by logit: two of them can round to one probability
    let order = logits.indices.sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
    return order.prefix(count).map {
        Ranked(index: $0, label: labels.isEmpty ? String($0) : labels[$0], probability: probabilities[$0])
    }
}
