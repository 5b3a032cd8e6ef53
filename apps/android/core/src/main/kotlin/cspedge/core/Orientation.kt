package cspedge.core

/**
 * How an image must be turned to stand upright. `exif` is the value of EXIF's tag 0x0112 (JEITA CP-3451, 4.6.4 A).
 *
 * Each is a mirror image along one or both axes, after rows and columns were exchanged where `transposed`.
 */
public enum class Orientation(
    public val exif: Int,
    private val transposed: Boolean,
    private val mirroredX: Boolean,
    private val mirroredY: Boolean,
) {
    UPRIGHT(1, false, false, false),
    MIRRORED(2, false, true, false),
    ROTATED_180(3, false, true, true),
    FLIPPED(4, false, false, true),
    TRANSPOSED(5, true, false, false),
    ROTATED_90(6, true, true, false),
    TRANSVERSED(7, true, true, true),
    ROTATED_270(8, true, false, true),
    ;

    /** The image, upright: what Pillow's `ImageOps.exif_transpose` gives. UPRIGHT returns the image itself. */
    public fun upright(image: RgbImage): RgbImage {
        if (this == UPRIGHT) return image
        val width = if (transposed) image.height else image.width
        val height = if (transposed) image.width else image.height
        val pixels = ByteArray(image.pixels.size)
        for (y in 0 until height) {
            val v = if (mirroredY) height - 1 - y else y
            for (x in 0 until width) {
                val u = if (mirroredX) width - 1 - x else x
                val source = 3 * if (transposed) u * image.width + v else v * image.width + u
                val target = 3 * (y * width + x)
                for (channel in 0 until 3) pixels[target + channel] = image.pixels[source + channel]
            }
        }
        return RgbImage(width, height, pixels)
    }

    public companion object {
        /** From EXIF's value; what is outside 1 to 8 says nothing and is UPRIGHT. */
        public fun fromExif(value: Int): Orientation = entries.firstOrNull { it.exif == value } ?: UPRIGHT

        /** From the degrees, clockwise, by which a camera's image must be turned: 0, 90, 180 or 270. */
        public fun fromDegrees(degrees: Int): Orientation = when (degrees) {
            0 -> UPRIGHT
            90 -> ROTATED_90
            180 -> ROTATED_180
            270 -> ROTATED_270
            else -> throw IllegalArgumentException("an image is turned by 0, 90, 180 or 270 degrees, not $degrees")
        }
    }
}
