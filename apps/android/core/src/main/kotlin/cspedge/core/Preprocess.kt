package cspedge.core

import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** How the size after the resize follows from the image's. */
public enum class ResizeRule(public val word: String) {
    SHORTER_EDGE("shorter-edge"),
    COVER("cover"),
    FIT("fit"),
    EXACT("exact"),
}

/**
 * The preprocessing contract of a manifest: RGB of any size to uint8 [3, cropHeight, cropWidth].
 *
 * `widthFirst`: the resize always goes along the width first, as Pillow before version 13 did.
 */
public data class Preprocess(
    val rule: ResizeRule,
    val height: Int,
    val width: Int,
    val interpolation: Interpolation,
    val widthFirst: Boolean,
    val cropHeight: Int,
    val cropWidth: Int,
    val pad: List<Int>,
    val maxPixels: Long,
) {
    /**
     * uint8 [3, cropHeight, cropWidth], channels first: byte for byte the pipeline's own tensor.
     *
     * Refusal image-empty for a side of 0; image-too-large for more than `maxPixels` pixels before or after the
     * resize.
     */
    public fun tensor(image: RgbImage): ByteArray {
        checkSize(image.width, image.height)
        val (newWidth, newHeight) = resized(image.width, image.height)
        val rows = window(newHeight, cropHeight)
        val columns = window(newWidth, cropWidth)
        return planes(resample(image, newWidth, newHeight, rows, columns, interpolation, widthFirst))
    }

    internal companion object {
        /** From the manifest's `preprocess`, which the schema has been checked against. */
        fun read(contract: JsonObject): Preprocess {
            val resize = contract["resize"].obj()
            val crop = contract["crop"].obj()
            val rule = resize["rule"].text()
            val interpolation = resize["interpolation"].text()
            return Preprocess(
                rule = ResizeRule.entries.first { it.word == rule },
                height = resize["height"].int(),
                width = resize["width"].int(),
                interpolation = Interpolation.entries.first { it.word == interpolation },
                widthFirst = resize["first_pass"].text() == "width",
                cropHeight = crop["height"].int(),
                cropWidth = crop["width"].int(),
                pad = contract["pad"].list().map { it.int() },
                maxPixels = contract["max_pixels"].num().toLong(),
            )
        }
    }

    /** The model's input for a tensor: x / 255 in float32. */
    public fun input(tensor: ByteArray): FloatArray = FloatArray(tensor.size) { (tensor[it].toInt() and 0xff) / 255f }

    /** Refusal image-empty or image-too-large for a size that `tensor` would refuse; before anything is decoded. */
    public fun checkSize(width: Int, height: Int) {
        if (width <= 0 || height <= 0) {
            throw Refusal(RefusalKind.IMAGE_EMPTY, "the image has $width x $height pixels; both sides must be above 0")
        }
        if (width.toLong() * height > maxPixels) throw tooLarge(width, height)
    }

    private fun resized(w: Int, h: Int): Pair<Int, Int> {
        val size = when (rule) {
            ResizeRule.EXACT -> longArrayOf(width.toLong(), height.toLong())
            ResizeRule.SHORTER_EDGE ->
                if (w <= h) {
                    longArrayOf(width.toLong(), (width.toLong() * h / w.toDouble()).toLong())
                } else {
                    longArrayOf((height.toLong() * w / h.toDouble()).toLong(), height.toLong())
                }
            ResizeRule.COVER, ResizeRule.FIT -> {
                val tall = h.toDouble() / height
                val wide = w.toDouble() / width
                val ratio = if (rule == ResizeRule.COVER) min(tall, wide) else max(tall, wide)
                longArrayOf(round(w / ratio).toLong(), round(h / ratio).toLong())
            }
        }
        if (size[0] < 1 || size[1] < 1) {
            throw Refusal(RefusalKind.IMAGE_EMPTY, "an image of $w x $h pixels would be resized to nothing")
        }
        if (size[0] * size[1] > maxPixels) throw tooLarge(w, h)
        return Pair(size[0].toInt(), size[1].toInt())
    }

    private fun tooLarge(w: Int, h: Int) = Refusal(
        RefusalKind.IMAGE_TOO_LARGE,
        "the image has $w x $h pixels; at most $maxPixels are allowed, before and after the resize",
    )

    /** Where the crop meets the image along one axis, in the image's positions. */
    private fun window(size: Int, crop: Int): Span =
        if (size <= crop) Span(0, size) else Span(round((size - crop) / 2.0).toInt(), crop)

    private fun planes(image: RgbImage): ByteArray {
        val out = ByteArray(3 * cropHeight * cropWidth)
        val top = (cropHeight - image.height) / 2
        val left = (cropWidth - image.width) / 2
        for (channel in 0 until 3) {
            val plane = channel * cropHeight * cropWidth
            out.fill(pad[channel].toByte(), plane, plane + cropHeight * cropWidth)
            for (y in 0 until image.height) {
                val row = plane + (top + y) * cropWidth + left
                for (x in 0 until image.width) {
                    out[row + x] = image.pixels[3 * (y * image.width + x) + channel]
                }
            }
        }
        return out
    }
}
