package androidx.camera.view

import android.content.Context
import androidx.camera.core.ImageCapture
import androidx.compose.ui.viewinterop.View
import androidx.lifecycle.LifecycleOwner
import java.util.concurrent.Executor

abstract class CameraController {
    fun setEnabledUseCases(useCases: Int): Unit = TODO()
    fun takePicture(executor: Executor, callback: ImageCapture.OnImageCapturedCallback): Unit = TODO()

    companion object {
        const val IMAGE_CAPTURE = 1
    }
}

class LifecycleCameraController(context: Context) : CameraController() {
    fun bindToLifecycle(owner: LifecycleOwner): Unit = TODO()
    fun unbind(): Unit = TODO()
}

class PreviewView(context: Context) : View() {
    var controller: CameraController? = null
}
