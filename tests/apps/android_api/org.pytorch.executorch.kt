package org.pytorch.executorch

abstract class Tensor {
    open val dataAsFloatArray: FloatArray get() = TODO()

    companion object {
        fun fromBlob(data: FloatArray, shape: LongArray): Tensor = TODO()
    }
}

class EValue {
    fun toTensor(): Tensor = TODO()

    companion object {
        fun from(tensor: Tensor): EValue = TODO()
    }
}

open class Module : java.io.Closeable {
    open fun execute(methodName: String, vararg inputs: EValue): Array<EValue> = TODO()
    open fun loadMethod(methodName: String): Unit = TODO()
    open fun destroy(): Unit = TODO()
    override fun close(): Unit = TODO()

    companion object {
        const val LOAD_MODE_MMAP = 1
        fun load(modelPath: String?, loadMode: Int = 0, numThreads: Int = 0): Module = TODO()
    }
}
