package cspedge.models

import cspedge.core.Artifact
import cspedge.core.ModelRuntime
import cspedge.core.Session
import java.nio.file.Path
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** ExecuTorch with XNNPACK. The program is mapped, not read: only the pages that are used come into memory. */
public class ExecuTorchRuntime : ModelRuntime {
    override fun runs(artifact: Artifact): Boolean = artifact.backend == "executorch"

    override fun open(artifact: Artifact, path: Path): Session = native("ExecuTorch") {
        val module = Module.load(path.toString(), Module.LOAD_MODE_MMAP)
        try {
            module.loadMethod(METHOD)
        } catch (error: RuntimeException) {
            module.destroy()
            throw error
        }
        ExecuTorchSession(module, longShape(artifact))
    }
}

private const val METHOD = "forward"

/** A library that is not there for this processor is an Error on the JVM; here it is a reason like any other. */
internal inline fun <T> native(name: String, block: () -> T): T = try {
    block()
} catch (error: LinkageError) {
    throw IllegalStateException("$name has no library for this device's processor", error)
}

internal fun longShape(artifact: Artifact): LongArray = artifact.inputShape.map { it.toLong() }.toLongArray()

private class ExecuTorchSession(private val module: Module, private val shape: LongArray) : Session {
    override fun run(input: FloatArray): List<FloatArray> {
        val answers = module.execute(METHOD, EValue.from(Tensor.fromBlob(input, shape)))
        return answers.map { it.toTensor().dataAsFloatArray }
    }

    override fun close() {
        module.destroy()
    }
}
