package cspedge.core

import java.io.DataInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Path

internal fun runtime(job: JsonObject, manifest: Manifest): ModelRuntime? =
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

internal fun floats(bytes: ByteArray): FloatArray = FloatArray(bytes.size / 4).also {
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
}
