#if canImport(CoreML)
    import CoreML
    import CspEdgeCore
    import Foundation

    /// An open Core ML model with the input `image`.
    public struct CoreMLSession: ModelSession {
        /// Core ML asks for one thread at a time.
        private let model: Serialized<MLModel>
        private let shape: [Int]
        private let outputs: [String]

        /// compiled: what `MLModel.compileModel` made; units: what Core ML may run on; shape: of the input, [1, 3, H, W];
        /// outputs: their names, in the order that `run` gives them.
        public init(compiled: URL, units: MLComputeUnits, shape: [Int], outputs: [String]) throws {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            self.model = Serialized(try MLModel(contentsOf: compiled, configuration: configuration))
            self.shape = shape
            self.outputs = outputs
        }

        public func run(_ input: [Float]) throws -> [[Float]] {
            try model.use { model in
                let answer = try model.prediction(from: try provider(input))
                return try outputs.map { output in
                    guard let values = answer.featureValue(for: output)?.multiArrayValue else {
                        throw KitError.runtimeDisagrees("it has no output '\(output)'")
                    }
                    return Array(MLShapedArray<Float>(converting: values).scalars)
                }
            }
        }

        /// What each of `count` predictions takes. The input is handed over once, before them; outputs are not copied.
        public func times(_ input: [Float], count: Int) throws -> [Duration] {
            try model.use { model in
                let image = try provider(input)
                let clock = ContinuousClock()
                return try (0..<count).map { _ in
                    try clock.measure { _ = try model.prediction(from: image) }
                }
            }
        }

        private func provider(_ input: [Float]) throws -> MLDictionaryFeatureProvider {
            let image = MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: input, shape: shape))
            return try MLDictionaryFeatureProvider(dictionary: ["image": image])
        }
    }
#endif
