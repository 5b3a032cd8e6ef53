package cspedge.models

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import cspedge.core.Artifact
import cspedge.core.ModelRuntime
import cspedge.core.Session
import java.nio.FloatBuffer
import java.nio.file.Path

/** ONNX Runtime on its own CPU kernels, as in the report: neither NNAPI nor XNNPACK, whose answers are others. */
public class OnnxRuntime : ModelRuntime {
    override fun runs(artifact: Artifact): Boolean = artifact.backend == "onnxruntime"

    override fun open(artifact: Artifact, path: Path): Session = native("ONNX Runtime") {
        val environment = OrtEnvironment.getEnvironment()
        OrtSession.SessionOptions().use { options ->
            val exact = artifact.runtimeOptions["x64quantprecision"] != "false"
            options.addConfigEntry("session.x64quantprecision", if (exact) "1" else "0")
            OnnxSession(environment, environment.createSession(path.toString(), options), longShape(artifact))
        }
    }
}

private class OnnxSession(
    private val environment: OrtEnvironment,
    private val session: OrtSession,
    private val shape: LongArray,
) : Session {
    private val input = session.inputNames.single()

    override fun run(input: FloatArray): List<FloatArray> =
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(input), shape).use { image ->
            session.run(mapOf(this.input to image)).use { answers -> answers.map { (_, value) -> floats(value) } }
        }

    override fun close() {
        session.close()
    }
}

private fun floats(value: Any): FloatArray {
    val tensor = value as? OnnxTensor ?: error("the model gives something that is no tensor")
    val buffer = tensor.floatBuffer
    return FloatArray(buffer.remaining()).also { buffer.get(it) }
}
