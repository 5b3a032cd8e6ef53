package cspedge.core

import java.nio.file.Path
import kotlin.math.abs

/** An opened artifact. `run` takes float32 [1, 3, H, W] and gives each output, in the order of the manifest's. */
public interface Session : AutoCloseable {
    public fun run(input: FloatArray): List<FloatArray>
}

/** A runtime: ExecuTorch or ONNX Runtime in the app. */
public interface ModelRuntime {
    /** Whether artifacts of this backend run here. */
    public fun runs(artifact: Artifact): Boolean

    /** Opens the artifact at `path`; any exception means that it does not load. */
    public fun open(artifact: Artifact, path: Path): Session
}

/** What the check of `golden/` found: the largest difference of any value, by artifact; those that cannot run here. */
public data class GoldenReport(val largest: Map<String, Double>, val notRun: List<String>)

/**
 * Replays golden/ (docs/bundle.md, steps 7 to 9): labels, the resize and crop of every image byte for byte, then every
 * artifact that `runtime` runs, within its tolerance.
 *
 * Refusal: labels-invalid, image-*, preprocess-mismatch, artifact-refused, golden-mismatch. Decoding the image *files*
 * is the platform's work and not checked here.
 */
public fun replayGolden(bundle: Bundle, runtime: ModelRuntime?): GoldenReport {
    val manifest = bundle.manifest
    bundle.labels()
    val images = manifest.goldenImages.map { Pair(bundle.goldenRgb(it), bundle.goldenTensor(it)) }
    for ((index, image) in images.withIndex()) {
        if (!manifest.preprocess.tensor(image.first).contentEquals(image.second)) {
            val name = manifest.goldenImages[index].file
            throw Refusal(RefusalKind.PREPROCESS_MISMATCH, "the resize and crop of '$name' do not give its tensor")
        }
    }
    val inputs = images.map { manifest.preprocess.input(it.second) }
    val (here, elsewhere) = manifest.artifacts.partition { runtime?.runs(it) ?: false }
    val largest = LinkedHashMap<String, Double>()
    if (runtime != null) {
        for (artifact in here) largest[artifact.label] = replay(bundle, artifact, runtime, inputs)
    }
    return GoldenReport(largest, elsewhere.map { it.label })
}

private fun replay(bundle: Bundle, artifact: Artifact, runtime: ModelRuntime, inputs: List<FloatArray>): Double {
    var largest = 0.0
    for ((row, distances) in goldenDistances(bundle, artifact, runtime, inputs).withIndex()) {
        distances.firstOrNull { !it.holds }?.let { throw mismatch(artifact, row, it) }
        largest = maxOf(largest, distances.maxOf { it.difference })
    }
    return largest
}

/** How far one output is from the golden answer: the largest difference of any value (NaN: not finite), what may be. */
public data class Distance(val output: String, val difference: Double, val allowed: Double) {
    public val holds: Boolean get() = difference <= allowed
}

/** For each input, in order, the distance of each output. Refusal artifact-refused where it does not load or run. */
internal fun goldenDistances(
    bundle: Bundle,
    artifact: Artifact,
    runtime: ModelRuntime,
    inputs: List<FloatArray>,
): List<List<Distance>> {
    val outputs = bundle.manifest.outputs
    val golden = artifact.golden.mapIndexed { index, entry -> bundle.goldenRows(entry, outputs[index]) }
    val path = bundle.artifactPath(artifact)
    val answers = try {
        runtime.open(artifact, path).use { session -> inputs.map { session.run(it) } }
    } catch (error: Exception) { // runtimes throw what they like; whatever it is, the artifact does not run
        throw Refusal(RefusalKind.ARTIFACT_REFUSED, "${artifact.label} does not load or run: ${error.message}", error)
    }
    return answers.mapIndexed { row, answer ->
        outputs.mapIndexed { index, output ->
            val difference = difference(answer.getOrNull(index), golden[index][row])
            Distance(output.name, difference, artifact.golden[index].maxAbs ?: 0.0)
        }
    }
}

/** The largest absolute difference; NaN where a value is not finite or the sizes differ. */
private fun difference(answer: FloatArray?, golden: FloatArray): Double {
    if (answer == null || answer.size != golden.size || answer.any { !it.isFinite() }) return Double.NaN
    return golden.indices.maxOf { abs(answer[it].toDouble() - golden[it]) }
}

private fun mismatch(artifact: Artifact, row: Int, found: Distance) = Refusal(
    RefusalKind.GOLDEN_MISMATCH,
    "${artifact.label} answers golden image $row with a difference of ${found.difference} in '${found.output}'; " +
        "${found.allowed} is allowed",
)
