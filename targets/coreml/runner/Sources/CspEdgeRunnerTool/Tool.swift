import CspEdgeRunner
import Foundation

/// `cspedge-coreml-runner JOB RESULTS`: runs the job in the folder JOB and writes the folder RESULTS.
@main
struct Tool {
    static func main() async {
        let arguments = CommandLine.arguments.dropFirst()
        guard arguments.count == 2, let job = arguments.first, let results = arguments.last else {
            stop("usage: cspedge-coreml-runner JOB RESULTS", code: 2)
        }
        #if canImport(CoreML)
            do {
                let runner = Runner(engine: CoreMLEngine(), machine: AppleMachine())
                try await runner.run(
                    Job(URL(fileURLWithPath: job, isDirectory: true)),
                    results: URL(fileURLWithPath: results, isDirectory: true))
            } catch {
                stop("error: \(error.localizedDescription)", code: 1)
            }
        #else
            stop("error: '\(job)' cannot be run into '\(results)': Core ML is not on this system; use a Mac", code: 4)
        #endif
    }

    private static func stop(_ message: String, code: Int32) -> Never {
        FileHandle.standardError.write(Data("\(message)\n".utf8))
        exit(code)
    }
}
