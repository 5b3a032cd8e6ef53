package cspedge.core

/** A decoded image: `pixels` is RGB, 8 bits each, rows from top to bottom without gaps, 3 * width * height bytes. */
public class RgbImage(public val width: Int, public val height: Int, public val pixels: ByteArray) {
    init {
        require(width >= 0 && height >= 0 && pixels.size.toLong() == 3L * width * height) {
            "an image of $width x $height pixels has ${3L * width * height} bytes, not ${pixels.size}"
        }
    }

    public companion object {
        /** From Android's packed pixels (`Bitmap.getPixels`): 0xAARRGGBB. Alpha is dropped, as the pipeline does. */
        public fun fromArgb(width: Int, height: Int, argb: IntArray): RgbImage {
            require(argb.size == width * height) { "$width x $height pixels are not ${argb.size}" }
            return fromArgbRows(width, height) { first, rows, into ->
                argb.copyInto(into, 0, first * width, (first + rows) * width)
            }
        }

        /**
         * The same in strips of at most `strip` rows: a photograph's packed pixels need not be in memory at once.
         * `read(first, rows, into)` puts `rows` rows, from the row `first` on, at the beginning of `into`.
         */
        public fun fromArgbRows(
            width: Int,
            height: Int,
            strip: Int = 64,
            read: (first: Int, rows: Int, into: IntArray) -> Unit,
        ): RgbImage {
            val pixels = ByteArray(Math.multiplyExact(3, Math.multiplyExact(width, height)))
            val packed = IntArray(width * minOf(strip, height))
            var at = 0
            for (first in 0 until height step strip) {
                val rows = minOf(strip, height - first)
                read(first, rows, packed)
                for (index in 0 until rows * width) {
                    val value = packed[index]
                    pixels[at++] = (value shr 16).toByte()
                    pixels[at++] = (value shr 8).toByte()
                    pixels[at++] = value.toByte()
                }
            }
            return RgbImage(width, height, pixels)
        }
    }
}
