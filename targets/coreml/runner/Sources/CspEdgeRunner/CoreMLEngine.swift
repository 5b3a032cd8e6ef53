#if canImport(CoreML)
    import CoreML
    import CspEdgeKit
    import Darwin
    import Foundation

    extension CoreMLSession: TimedSession {}

    /// Core ML itself.
    public struct CoreMLEngine: Engine {
        public let runtime = Line.Runtime(
            name: "coreml", version: ProcessInfo.processInfo.operatingSystemVersionString)

        public init() {}

        public func compile(_ package: URL) async throws -> URL { try await MLModel.compileModel(at: package) }

        public func load(
            _ compiled: URL, shape: [Int], outputs: [String], units: ComputeUnits
        ) throws -> any TimedSession {
            try CoreMLSession(compiled: compiled, units: units.coreML, shape: shape, outputs: outputs)
        }

        public func operations(_ compiled: URL, units: ComputeUnits) async throws -> [String: Int] {
            guard #available(iOS 17.4, macOS 14.4, *) else { return [:] }
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.coreML
            let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
            guard case .program(let program) = plan.modelStructure, let main = program.functions["main"] else {
                return [:]
            }
            var counts: [String: Int] = [:]
            for operation in main.block.operations {
                guard let usage = plan.deviceUsage(for: operation) else { continue }  // constants have none
                counts[name(usage.preferred), default: 0] += 1
            }
            return counts
        }

        @available(iOS 17.4, macOS 14.4, *)
        private func name(_ device: MLComputeDevice) -> String {
            switch device {
            case .cpu: "CPU"
            case .gpu: "GPU"
            case .neuralEngine: "NeuralEngine"
            @unknown default: "other"
            }
        }
    }

    extension ComputeUnits {
        var coreML: MLComputeUnits {
            switch self {
            case .all: .all
            case .cpuOnly: .cpuOnly
            case .cpuAndGPU: .cpuAndGPU
            case .cpuAndNeuralEngine: .cpuAndNeuralEngine
            }
        }
    }

    /// The Mac, iPhone or iPad that this runs on.
    public struct AppleMachine: Machine {
        public init() {}

        public var facts: DeviceFacts {
            #if os(macOS)
                let (platform, model) = ("macOS", text("hw.model"))
            #else
                let (platform, model) = ("iOS", text("hw.machine"))
            #endif
            #if arch(arm64)
                let machine = "arm64"
            #else
                let machine = "x86_64"
            #endif
            let system = "\(platform) \(ProcessInfo.processInfo.operatingSystemVersionString)"
            return DeviceFacts(platform: platform, model: model, machine: machine, system: system)
        }

        public var lowPowerMode: Bool { ProcessInfo.processInfo.isLowPowerModeEnabled }

        public var thermalState: String {
            switch ProcessInfo.processInfo.thermalState {
            case .nominal: "nominal"
            case .fair: "fair"
            case .serious: "serious"
            case .critical: "critical"
            @unknown default: "unknown"
            }
        }

        /// `phys_footprint`: what the system holds against this process's limit; 0 where it does not tell.
        public var footprint: Int {
            var info = task_vm_info_data_t()
            let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
            var count = mach_msg_type_number_t(words)
            let done = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: words) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
                }
            }
            return done == KERN_SUCCESS ? Int(info.phys_footprint) : 0
        }

        private func text(_ name: String) -> String {
            var size = 0
            guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
            var bytes = [UInt8](repeating: 0, count: size)
            guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return "unknown" }
            return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
#endif
