package cspedge.models

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.ImageDecoder
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import androidx.annotation.RequiresApi
import cspedge.core.Answer
import cspedge.core.Classifier
import cspedge.core.Orientation
import cspedge.core.Preprocess
import cspedge.core.Refusal
import cspedge.core.RefusalKind
import cspedge.core.RgbImage
import java.io.IOException
import java.nio.ByteBuffer

/** The answer about a picture by its address. Not for the main thread; raises what `readImage` and `classify` raise. */
public fun Classifier.classify(resolver: ContentResolver, uri: Uri): Answer =
    classify(readImage(resolver, uri, bundle.manifest.preprocess))

/**
 * A picture by its address, as `decodeImage`. Refusal image-invalid also where it cannot be read; SecurityException
 * where the app may not.
 */
public fun readImage(resolver: ContentResolver, uri: Uri, preprocess: Preprocess): RgbImage {
    val bytes = try {
        resolver.openInputStream(uri)?.use { it.readBytes() }
    } catch (error: IOException) {
        throw Refusal(RefusalKind.IMAGE_INVALID, "the picture cannot be read: ${error.message}", error)
    }
    return decodeImage(bytes ?: throw Refusal(RefusalKind.IMAGE_INVALID, "the picture is no longer there"), preprocess)
}

/**
 * Decodes an image file at its full size (the contract's own resize comes after), turned upright as EXIF says: RGB of
 * 8 bits, sRGB, alpha dropped without having been multiplied in.
 *
 * Refusal: image-empty, image-too-large (before any pixel is decoded, or where the memory does not suffice),
 * image-invalid.
 */
public fun decodeImage(bytes: ByteArray, preprocess: Preprocess): RgbImage = try {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
        decodeWithImageDecoder(bytes, preprocess)
    } else {
        decodeWithBitmapFactory(bytes, preprocess)
    }
} catch (error: IOException) {
    throw Refusal(RefusalKind.IMAGE_INVALID, "the picture cannot be decoded: ${error.message}", error)
} catch (error: OutOfMemoryError) {
    throw Refusal(RefusalKind.IMAGE_TOO_LARGE, "the picture does not fit into this device's memory", error)
}

/** The pixels of a bitmap that is not in graphics memory, turned by `orientation`; 0xAARRGGBB is what it gives. */
public fun rgbImage(bitmap: Bitmap, orientation: Orientation = Orientation.UPRIGHT): RgbImage {
    val width = bitmap.width
    val image = RgbImage.fromArgbRows(width, bitmap.height) { first, rows, into ->
        bitmap.getPixels(into, 0, width, 0, first, width, rows)
    }
    return orientation.upright(image)
}

/** It turns images upright by itself. */
@RequiresApi(Build.VERSION_CODES.P)
private fun decodeWithImageDecoder(bytes: ByteArray, preprocess: Preprocess): RgbImage {
    val bitmap = ImageDecoder.decodeBitmap(ImageDecoder.createSource(ByteBuffer.wrap(bytes))) { decoder, info, _ ->
        preprocess.checkSize(info.size.width, info.size.height)
        decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
        decoder.setTargetColorSpace(ColorSpace.get(ColorSpace.Named.SRGB))
        decoder.isUnpremultipliedRequired = true
    }
    return released(bitmap, Orientation.UPRIGHT)
}

/** Android 8, which has no ImageDecoder. */
private fun decodeWithBitmapFactory(bytes: ByteArray, preprocess: Preprocess): RgbImage {
    val size = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    BitmapFactory.decodeByteArray(bytes, 0, bytes.size, size)
    if (size.outMimeType == null) throw IOException("it is of no format that this device knows")
    preprocess.checkSize(size.outWidth, size.outHeight)
    val options = BitmapFactory.Options().apply {
        inPreferredConfig = Bitmap.Config.ARGB_8888
        inPreferredColorSpace = ColorSpace.get(ColorSpace.Named.SRGB)
        inPremultiplied = false
        inScaled = false
    }
    val bitmap = BitmapFactory.decodeByteArray(bytes, 0, bytes.size, options) ?: throw IOException("it is damaged")
    val exif = ExifInterface(bytes.inputStream())
    val value = exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
    return released(bitmap, Orientation.fromExif(value))
}

private fun released(bitmap: Bitmap, orientation: Orientation): RgbImage = try {
    rgbImage(bitmap, orientation)
} finally {
    bitmap.recycle()
}
