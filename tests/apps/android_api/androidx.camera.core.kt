package androidx.camera.core

import android.graphics.Bitmap

interface ImageInfo {
    val rotationDegrees: Int
}

interface ImageProxy : AutoCloseable {
    val imageInfo: ImageInfo
    fun toBitmap(): Bitmap
}

class ImageCaptureException : Exception()

object ImageCapture {
    abstract class OnImageCapturedCallback {
        open fun onCaptureSuccess(image: ImageProxy): Unit = TODO()
        open fun onError(exception: ImageCaptureException): Unit = TODO()
    }
}
