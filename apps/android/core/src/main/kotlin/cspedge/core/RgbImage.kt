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
            val pixels = ByteArray(3 * argb.size)
            for ((index, value) in argb.withIndex()) {
                pixels[3 * index] = (value shr 16).toByte()
                pixels[3 * index + 1] = (value shr 8).toByte()
                pixels[3 * index + 2] = value.toByte()
            }
            return RgbImage(width, height, pixels)
        }
    }
}
