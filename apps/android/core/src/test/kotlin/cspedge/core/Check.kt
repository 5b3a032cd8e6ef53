package cspedge.core

import java.io.DataInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.nio.file.Path

/**
 * Runs a list of jobs through the core and prints one JSON value a line: what Python's tests compare with.
 * The Swift package has the same program, with the same jobs.
 */
public fun main(arguments: Array<String>) {
    val jobs = parseJson(Files.readAllBytes(Path.of(arguments.single()))).list()
    for (job in jobs) {
        println(
            try {
                run(job.obj())
            } catch (refusal: Refusal) {
                "{\"kind\": ${quoted(refusal.kind.word)}, \"message\": ${quoted(refusal.message.orEmpty())}}"
            },
        )
    }
}

private fun run(job: JsonObject): String = when (val task = job["do"].text()) {
    "preprocess" -> preprocess(job)
    "verify" -> {
        val bundle = Bundle.open(Path.of(job["bundle"].text()), key(job))
        report(replayGolden(bundle, runtime(job, bundle.manifest)))
    }
    "accept" -> accept(job)
    "installed" -> {
        val bundle = store(job).installed()
        if (bundle == null) "null" else quoted(bundle.manifest.version.toString())
    }
    "top" -> top(job)
    else -> error("unknown job '$task'")
}

private fun preprocess(job: JsonObject): String {
    val pixels = Files.readAllBytes(Path.of(job["rgb"].text()))
    val image = RgbImage(job["width"].int(), job["height"].int(), pixels)
    // through Android's packed pixels, with an alpha that must be dropped
    val argb = IntArray(image.width * image.height) {
        val (r, g, b) = List(3) { channel -> pixels[3 * it + channel].toInt() and 0xff }
        ((it % 256) shl 24) or (r shl 16) or (g shl 8) or b
    }
    val tensor = Preprocess.read(job["preprocess"].obj()).tensor(RgbImage.fromArgb(image.width, image.height, argb))
    Files.write(Path.of(job["out"].text()), tensor)
    return "{\"sha256\": ${quoted(sha256(tensor))}}"
}

private fun accept(job: JsonObject): String {
    val source = Path.of(job["bundle"].text())
    val manifest = source.resolve(MANIFEST_FILE)
    val runtime = if ("runtime" in job.fields) runtime(job, Manifest.parse(Files.readAllBytes(manifest))) else null
    return report(store(job).accept(source, runtime).report)
}

private fun store(job: JsonObject): BundleStore =
    BundleStore(Path.of(job["store"].text()), job["name"].text(), requireNotNull(key(job)))

private fun top(job: JsonObject): String {
    val logits = floats(Files.readAllBytes(Path.of(job["logits"].text())))
    val labels = job["labels"].list().map { it.text() }
    return topK(logits, labels, job["count"].int()).joinToString(", ", "[", "]") {
        "[${it.index}, ${quoted(it.label)}, ${it.probability}]"
    }
}

private fun key(job: JsonObject): VerifyingKey? =
    (job.fields["key"] as? JsonString)?.let { VerifyingKey.fromPem(Files.readString(Path.of(it.value))) }

private fun report(report: GoldenReport): String {
    val largest = report.largest.entries.joinToString(", ") { "${quoted(it.key)}: ${it.value}" }
    return "{\"largest\": {$largest}, \"not_run\": [${report.notRun.joinToString(", ") { quoted(it) }}]}"
}

private fun quoted(text: String): String = buildString {
    append('"')
    for (char in text) {
        if (char == '"' || char == '\\' || char < ' ') append("\\u%04x".format(char.code)) else append(char)
    }
    append('"')
}

private fun floats(bytes: ByteArray): FloatArray = FloatArray(bytes.size / 4).also {
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
}

private fun runtime(job: JsonObject, manifest: Manifest): ModelRuntime? =
    (job.fields["runtime"] as? JsonArray)?.let { command ->
        ProcessRuntime(command.items.map { it.text() }, job["backend"].text(), manifest.outputs)
    }

/** A real runtime in a process of its own: float32 in and out over its pipes. */
private class ProcessRuntime(
    private val command: List<String>,
    private val backend: String,
    private val outputs: List<Output>,
) : ModelRuntime {
    override fun runs(artifact: Artifact): Boolean = artifact.backend == backend

    override fun open(artifact: Artifact, path: Path): Session = ProcessSession(
        ProcessBuilder(command + path.toString()).redirectError(ProcessBuilder.Redirect.INHERIT).start(),
        outputs,
    )
}

private class ProcessSession(private val process: Process, private val outputs: List<Output>) : Session {
    private val answers = DataInputStream(process.inputStream)

    override fun run(input: FloatArray): List<FloatArray> {
        val bytes = ByteBuffer.allocate(4 * input.size).order(ByteOrder.LITTLE_ENDIAN)
        bytes.asFloatBuffer().put(input)
        process.outputStream.write(bytes.array())
        process.outputStream.flush()
        return outputs.map { output -> floats(ByteArray(4 * output.size).also { answers.readFully(it) }) }
    }

    override fun close() {
        process.outputStream.close()
        process.waitFor()
    }
}
