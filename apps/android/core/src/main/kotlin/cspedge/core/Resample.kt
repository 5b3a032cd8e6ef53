package cspedge.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sin

/** Pillow's resampling filters; `support` is in source pixels at scale 1. */
public enum class Interpolation(public val word: String, internal val support: Double) {
    NEAREST("nearest", 0.0),
    BOX("box", 0.5),
    BILINEAR("bilinear", 1.0),
    HAMMING("hamming", 1.0),
    BICUBIC("bicubic", 2.0),
    LANCZOS("lanczos", 3.0),
    ;

    // The order of operations is Pillow's: another one rounds some coefficients to other integers.
    internal fun weight(signed: Double): Double {
        val x = abs(signed)
        return when (this) {
            NEAREST -> error("nearest has no weights")
            BOX -> if (signed > -0.5 && signed <= 0.5) 1.0 else 0.0
            BILINEAR -> if (x < 1.0) 1.0 - x else 0.0
            HAMMING -> hamming(x)
            BICUBIC -> when {
                x < 1.0 -> ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
                x < 2.0 -> (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
                else -> 0.0
            }
            LANCZOS -> if (signed >= -3.0 && signed < 3.0) sinc(signed) * sinc(signed / 3.0) else 0.0
        }
    }

    private fun hamming(x: Double): Double = when {
        x == 0.0 -> 1.0
        x >= 1.0 -> 0.0
        else -> sinc(x) * (0.54f.toDouble() + 0.46f.toDouble() * cos(x * PI)) // its constants are floats
    }

    private fun sinc(x: Double): Double = if (x == 0.0) 1.0 else sin(x * PI) / (x * PI)
}

private const val BITS = 22
private const val HALF = 1 shl (BITS - 1)

/** The positions `from` until `from + count` of one axis. */
internal class Span(val from: Int, val count: Int)

/** One axis of a resize: for each position of `span`, its first source sample and integer coefficients. */
private class Axis(old: Int, new: Int, val span: Span, filter: Interpolation) {
    val first = IntArray(span.count)
    val coefficients: Array<IntArray>

    init {
        val scale = old.toDouble() / new
        val stretch = max(scale, 1.0)
        val support = filter.support * stretch
        val inverse = 1.0 / stretch
        coefficients = Array(span.count) { index ->
            val center = (span.from + index + 0.5) * scale
            val low = max((center - support + 0.5).toInt(), 0)
            val high = min((center + support + 0.5).toInt(), old)
            first[index] = low
            quantized(DoubleArray(high - low) { filter.weight((it + low - center + 0.5) * inverse) })
        }
    }

    private fun quantized(weights: DoubleArray): IntArray {
        var sum = 0.0
        for (weight in weights) sum += weight
        return IntArray(weights.size) {
            val weight = (if (sum != 0.0) weights[it] / sum else weights[it]) * (1 shl BITS)
            (if (weight < 0) weight - 0.5 else weight + 0.5).toInt()
        }
    }

    /** The source samples that are needed. */
    fun source(): Span {
        val from = first.min()
        return Span(from, first.indices.maxOf { first[it] + coefficients[it].size } - from)
    }
}

/**
 * The part (`rows`, `columns`) of `image` resized to `width` x `height`, equal in every byte to Pillow's
 * `Image.resize`: two passes with 22-bit coefficients, each rounded to 8 bits; only what the part needs is computed.
 */
internal fun resample(
    image: RgbImage,
    width: Int,
    height: Int,
    rows: Span,
    columns: Span,
    filter: Interpolation,
    widthFirst: Boolean,
): RgbImage {
    if (filter == Interpolation.NEAREST) return nearest(image, width, height, rows, columns)
    val across = if (width == image.width) null else Axis(image.width, width, columns, filter)
    val down = if (height == image.height) null else Axis(image.height, height, rows, filter)
    val sourceRows = down?.source() ?: rows
    val sourceColumns = across?.source() ?: columns
    // From Pillow 13 on (its #9549); the rounding between the passes tells the orders apart.
    val lost = image.height - height
    if (!widthFirst && lost > 0 && lost > 2 * (image.width - width)) {
        val tall = part(image, sourceRows, sourceColumns)
        val flat = if (down == null) tall else vertical(tall, down, sourceRows.from)
        return if (across == null) flat else horizontal(flat, across, sourceColumns.from)
    }
    val wide = part(image, sourceRows, sourceColumns)
    val narrow = if (across == null) wide else horizontal(wide, across, sourceColumns.from)
    return if (down == null) narrow else vertical(narrow, down, sourceRows.from)
}

/** A window of an image; the image itself where it is all of it. */
internal fun part(image: RgbImage, rows: Span, columns: Span): RgbImage {
    if (rows.count == image.height && columns.count == image.width) return image
    val out = ByteArray(3 * rows.count * columns.count)
    for (row in 0 until rows.count) {
        val start = 3 * ((rows.from + row) * image.width + columns.from)
        image.pixels.copyInto(out, 3 * row * columns.count, start, start + 3 * columns.count)
    }
    return RgbImage(columns.count, rows.count, out)
}

private fun horizontal(image: RgbImage, axis: Axis, offset: Int): RgbImage {
    val width = axis.span.count
    val out = ByteArray(3 * width * image.height)
    for (x in 0 until width) {
        val start = axis.first[x] - offset
        for (y in 0 until image.height) {
            blend(image.pixels, 3 * (y * image.width + start), 3, axis.coefficients[x], out, 3 * (y * width + x))
        }
    }
    return RgbImage(width, image.height, out)
}

private fun vertical(image: RgbImage, axis: Axis, offset: Int): RgbImage {
    val height = axis.span.count
    val stride = 3 * image.width
    val out = ByteArray(stride * height)
    for (y in 0 until height) {
        val start = (axis.first[y] - offset) * stride
        for (x in 0 until image.width) {
            blend(image.pixels, start + 3 * x, stride, axis.coefficients[y], out, y * stride + 3 * x)
        }
    }
    return RgbImage(image.width, height, out)
}

private fun blend(source: ByteArray, start: Int, step: Int, coefficients: IntArray, out: ByteArray, at: Int) {
    var red = HALF
    var green = HALF
    var blue = HALF
    var index = start
    for (coefficient in coefficients) {
        red += (source[index].toInt() and 0xff) * coefficient
        green += (source[index + 1].toInt() and 0xff) * coefficient
        blue += (source[index + 2].toInt() and 0xff) * coefficient
        index += step
    }
    out[at] = clip8(red)
    out[at + 1] = clip8(green)
    out[at + 2] = clip8(blue)
}

private fun clip8(sum: Int): Byte = (sum shr BITS).coerceIn(0, 255).toByte()

private fun nearest(image: RgbImage, width: Int, height: Int, rows: Span, columns: Span): RgbImage {
    val down = nearestIndices(image.height, height)
    val across = nearestIndices(image.width, width)
    val out = ByteArray(3 * rows.count * columns.count)
    for (y in 0 until rows.count) {
        for (x in 0 until columns.count) {
            val from = 3 * (down[rows.from + y] * image.width + across[columns.from + x])
            image.pixels.copyInto(out, 3 * (y * columns.count + x), from, from + 3)
        }
    }
    return RgbImage(columns.count, rows.count, out)
}

// The position is a running sum, as in Pillow: a product would round otherwise.
private fun nearestIndices(old: Int, new: Int): IntArray {
    val scale = old.toDouble() / new
    var position = scale * 0.5
    return IntArray(new) { min(position.toInt(), old - 1).also { position += scale } }
}
