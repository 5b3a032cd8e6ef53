package android.content.res

import java.io.InputStream

abstract class AssetManager {
    abstract fun list(path: String): Array<String>?
    abstract fun open(fileName: String): InputStream
    abstract fun open(fileName: String, accessMode: Int): InputStream

    companion object {
        const val ACCESS_STREAMING = 2
    }
}
