package cspedge.core

import kotlin.math.abs

/**
 * What one golden image gave on this device.
 *
 * `decoded`: the mean difference, in levels of 255, between the platform's decoding of the image file and the pixels
 * that the pipeline saw (0 is needed for a PNG, at most 1 for a JPEG); null where no decoder was given.
 */
public data class GoldenResult(
    val file: String,
    val tensorHolds: Boolean,
    val decoded: Double?,
    val distances: List<Distance>,
) {
    public val holds: Boolean
        get() = tensorHolds && distances.all { it.holds } && (decoded == null || decoded <= decodingLimit)

    private val decodingLimit get() = if (file.endsWith(".png")) 0.0 else 1.0
}

/**
 * Replays golden/ through one artifact and gives every distance, also of what fails (`replayGolden` stops there).
 *
 * `decode`: the app's decoder of image files. Refusal where the bundle is damaged or the artifact does not run.
 */
public fun selfTest(
    bundle: Bundle,
    artifact: Artifact,
    runtime: ModelRuntime,
    decode: ((ByteArray) -> RgbImage)? = null,
): List<GoldenResult> {
    val preprocess = bundle.manifest.preprocess
    val tensors = bundle.manifest.goldenImages.map(bundle::goldenTensor)
    val distances = goldenDistances(bundle, artifact, runtime, tensors.map(preprocess::input))
    return bundle.manifest.goldenImages.mapIndexed { row, image ->
        val rgb = bundle.goldenRgb(image)
        GoldenResult(
            file = image.file,
            tensorHolds = preprocess.tensor(rgb).contentEquals(tensors[row]),
            decoded = decode?.let { meanDifference(it(bundle.read(image.file)), rgb) },
            distances = distances[row],
        )
    }
}

/** The mean absolute difference of two images' samples; infinite where their sizes differ. */
internal fun meanDifference(one: RgbImage, other: RgbImage): Double {
    if (one.width != other.width || one.height != other.height) return Double.POSITIVE_INFINITY
    var sum = 0L
    for (index in one.pixels.indices) {
        sum += abs((one.pixels[index].toInt() and 0xff) - (other.pixels[index].toInt() and 0xff))
    }
    return sum.toDouble() / one.pixels.size
}
