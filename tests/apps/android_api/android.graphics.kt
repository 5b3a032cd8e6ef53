package android.graphics

import android.util.Size
import java.nio.ByteBuffer

abstract class Bitmap {
    abstract val width: Int
    abstract val height: Int
    abstract fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int)
    abstract fun recycle()

    enum class Config { ARGB_8888 }
}

object BitmapFactory {
    class Options {
        var inJustDecodeBounds: Boolean = false
        var inPreferredConfig: Bitmap.Config? = null
        var inPreferredColorSpace: ColorSpace? = null
        var inPremultiplied: Boolean = true
        var inScaled: Boolean = true
        var outMimeType: String? = null
        var outWidth: Int = 0
        var outHeight: Int = 0
    }

    fun decodeByteArray(data: ByteArray, offset: Int, length: Int, options: Options): Bitmap? = TODO()
}

abstract class ColorSpace {
    enum class Named { SRGB }

    companion object {
        fun get(name: Named): ColorSpace = TODO()
    }
}

abstract class ImageDecoder {
    abstract var allocator: Int
    abstract var isUnpremultipliedRequired: Boolean
    abstract fun setTargetColorSpace(space: ColorSpace?)

    abstract class Source
    abstract class ImageInfo {
        abstract val size: Size
    }
    fun interface OnHeaderDecodedListener {
        fun onHeaderDecoded(decoder: ImageDecoder, info: ImageInfo, source: Source)
    }

    companion object {
        const val ALLOCATOR_SOFTWARE = 1
        fun createSource(buffer: ByteBuffer): Source = TODO()
        fun decodeBitmap(source: Source, listener: OnHeaderDecodedListener): Bitmap = TODO()
    }
}
