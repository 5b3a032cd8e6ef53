/// What one answer took: the resize and crop, and the model.
public struct Timing: Equatable, Sendable {
    public let preprocess: Duration
    public let model: Duration

    public init(preprocess: Duration, model: Duration) {
        self.preprocess = preprocess
        self.model = model
    }
}

/// Medians over the last answers.
public struct Latency: Equatable, Sendable {
    public let window: Int
    private var timings: [Timing] = []

    /// window: how many answers count, the last ones.
    public init(window: Int = 30) {
        self.window = max(1, window)
    }

    public mutating func add(_ timing: Timing) {
        timings.append(timing)
        if timings.count > window { timings.removeFirst(timings.count - window) }
    }

    public var count: Int { timings.count }

    /// nil before the first answer, as is `model`.
    public var preprocess: Duration? { median(timings.map(\.preprocess)) }

    public var model: Duration? { median(timings.map(\.model)) }
}

/// The middle one, or the mean of the two in the middle.
func median(_ durations: [Duration]) -> Duration? {
    if durations.isEmpty { return nil }
    let sorted = durations.sorted()
    let middle = sorted.count / 2
    return sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
}

extension Duration {
    public var milliseconds: Double {
        Double(components.seconds) * 1e3 + Double(components.attoseconds) * 1e-15
    }
}
