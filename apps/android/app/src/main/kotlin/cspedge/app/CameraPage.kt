package cspedge.app

import android.Manifest
import android.content.Context
import android.content.pm.PackageManager
import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.ImageCapture
import androidx.camera.core.ImageCaptureException
import androidx.camera.core.ImageProxy
import androidx.camera.view.CameraController
import androidx.camera.view.LifecycleCameraController
import androidx.camera.view.PreviewView
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.height
import androidx.compose.material3.Button
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.DisposableEffect
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.platform.LocalContext
import androidx.compose.ui.unit.dp
import androidx.compose.ui.viewinterop.AndroidView
import androidx.core.content.ContextCompat
import androidx.lifecycle.compose.LocalLifecycleOwner

/** Asks for the camera, shows what it sees and gives one picture, which the receiver closes. */
@Composable
fun CameraPage(ready: Boolean, take: (ImageProxy) -> Unit) {
    val context = LocalContext.current
    var allowed by remember { mutableStateOf(mayUseCamera(context)) }
    val permission = rememberLauncherForActivityResult(ActivityResultContracts.RequestPermission()) { allowed = it }
    if (allowed) {
        Viewfinder(context, ready, take)
    } else {
        Text("The camera may not be used. Pictures are looked at on this device and are not kept.")
        Button(onClick = { permission.launch(Manifest.permission.CAMERA) }) { Text("Allow the camera") }
    }
}

private fun mayUseCamera(context: Context) =
    ContextCompat.checkSelfPermission(context, Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

@Composable
private fun Viewfinder(context: Context, ready: Boolean, take: (ImageProxy) -> Unit) {
    val owner = LocalLifecycleOwner.current
    var problem by remember { mutableStateOf<String?>(null) }
    val controller = remember {
        LifecycleCameraController(context).apply { setEnabledUseCases(CameraController.IMAGE_CAPTURE) }
    }
    DisposableEffect(owner) {
        controller.bindToLifecycle(owner)
        onDispose { controller.unbind() }
    }
    Column {
        AndroidView(
            factory = { PreviewView(it).also { view -> view.controller = controller } },
            modifier = Modifier.fillMaxWidth().height(360.dp),
        )
        Button(onClick = { capture(context, controller, take) { problem = it } }, enabled = ready) {
            Text("Take a picture")
        }
        problem?.let { Text(it) }
    }
}

private fun capture(
    context: Context,
    controller: LifecycleCameraController,
    take: (ImageProxy) -> Unit,
    fail: (String) -> Unit,
) {
    val callback = object : ImageCapture.OnImageCapturedCallback() {
        override fun onCaptureSuccess(image: ImageProxy) {
            take(image)
        }

        override fun onError(exception: ImageCaptureException) {
            fail("The camera gives no picture: ${exception.message}")
        }
    }
    controller.takePicture(ContextCompat.getMainExecutor(context), callback)
}
