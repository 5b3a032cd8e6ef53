package cspedge.core

import java.nio.file.Path

/** Several runtimes as one; an artifact is opened by the first that runs it. */
public class Runtimes(private val all: List<ModelRuntime>) : ModelRuntime {
    override fun runs(artifact: Artifact): Boolean = all.any { it.runs(artifact) }

    override fun open(artifact: Artifact, path: Path): Session =
        all.first { it.runs(artifact) }.open(artifact, path)
}

private val VERDICTS = listOf("ship", "caution", "do-not-ship")
private val PRECISIONS = listOf("int8", "fp16", "fp32")

/**
 * The artifacts that run here, the one to use first: by the report's verdict (ship, caution, do-not-ship), then int8
 * before float, then as the manifest lists them.
 */
public fun runnable(manifest: Manifest, runtime: ModelRuntime): List<Artifact> =
    manifest.artifacts.filter(runtime::runs).sortedWith(
        compareBy({ VERDICTS.indexOf(it.verdict) }, { PRECISIONS.indexOf(it.precision) }),
    )

/**
 * What a model says of one image. `outputs`: float32, in the order of the manifest's; `top`: the likeliest classes,
 * empty for a model whose first output is no logits. Times in milliseconds: resize, crop and scaling; the model alone.
 */
public class Answer(
    public val outputs: List<FloatArray>,
    public val top: List<Ranked>,
    public val preprocessMillis: Double,
    public val modelMillis: Double,
)

/** One opened artifact of a checked bundle. Calls from several threads wait for each other. */
public class Classifier private constructor(
    public val bundle: Bundle,
    public val artifact: Artifact,
    private val session: Session,
) : AutoCloseable {
    private val labels = bundle.labels()

    /** Refusal image-empty or image-too-large; what the runtime throws is passed on. */
    @Synchronized
    public fun classify(image: RgbImage, count: Int = 5): Answer {
        val preprocess = bundle.manifest.preprocess
        val start = System.nanoTime()
        val input = preprocess.input(preprocess.tensor(image))
        val prepared = System.nanoTime()
        val outputs = session.run(input)
        val done = System.nanoTime()
        val ranked = bundle.manifest.outputs.first().values == "logits"
        val top = if (ranked) topK(outputs.first(), labels, count) else emptyList()
        return Answer(outputs, top, (prepared - start) / 1e6, (done - prepared) / 1e6)
    }

    @Synchronized
    override fun close(): Unit = session.close()

    public companion object {
        /**
         * Opens the bundle's first `runnable` artifact, or the one given. Its files are held against their digests, and
         * then opened where they lie: the store's folder is the app's own.
         *
         * Refusal artifact-refused where none runs here or it does not load.
         */
        public fun open(bundle: Bundle, runtime: ModelRuntime, artifact: Artifact? = null): Classifier {
            val chosen = artifact ?: runnable(bundle.manifest, runtime).firstOrNull() ?: throw Refusal(
                RefusalKind.ARTIFACT_REFUSED,
                "no runtime of this app runs ${bundle.manifest.artifacts.joinToString { it.label }}",
            )
            val path = bundle.artifactPath(chosen)
            val session = try {
                runtime.open(chosen, path)
            } catch (error: Exception) { // as in goldenDistances
                throw Refusal(RefusalKind.ARTIFACT_REFUSED, "${chosen.label} does not load: ${error.message}", error)
            }
            return Classifier(bundle, chosen, session)
        }
    }
}
