package ai.onnxruntime

import java.nio.FloatBuffer

class OrtException : Exception()

abstract class OrtEnvironment {
    abstract fun createSession(modelPath: String, options: OrtSession.SessionOptions): OrtSession

    companion object {
        fun getEnvironment(): OrtEnvironment = TODO()
    }
}

interface OnnxValue : AutoCloseable

abstract class OnnxTensor : OnnxValue {
    abstract val floatBuffer: FloatBuffer

    companion object {
        fun createTensor(env: OrtEnvironment, data: FloatBuffer, shape: LongArray): OnnxTensor = TODO()
    }
}

abstract class OrtSession : AutoCloseable {
    abstract val inputNames: Set<String>
    abstract fun run(inputs: Map<String, OnnxTensor>): Result

    class SessionOptions : AutoCloseable {
        fun addConfigEntry(configKey: String, configValue: String): Unit = TODO()
        override fun close(): Unit = TODO()
    }
    abstract class Result : AutoCloseable, Iterable<Map.Entry<String, OnnxValue>>
}
