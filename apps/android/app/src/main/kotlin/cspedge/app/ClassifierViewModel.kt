package cspedge.app

import android.app.Application
import android.net.Uri
import androidx.camera.core.ImageProxy
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.setValue
import androidx.core.content.ContextCompat
import androidx.lifecycle.AndroidViewModel
import cspedge.app.state.Event
import cspedge.app.state.Guess
import cspedge.app.state.Model
import cspedge.app.state.Screen
import cspedge.app.state.Shown
import cspedge.app.state.TestRow
import cspedge.app.state.reduce
import cspedge.core.Answer
import cspedge.core.Classifier
import cspedge.core.GoldenResult
import cspedge.core.Orientation
import cspedge.core.RgbImage
import cspedge.core.selfTest
import cspedge.models.bundleStore
import cspedge.models.decodeImage
import cspedge.models.modelRuntime
import cspedge.models.openBundle
import cspedge.models.readImage
import cspedge.models.rgbImage
import java.io.IOException
import java.util.concurrent.Executors

/** Opens the model, answers about pictures and runs the self-test, one after another on one thread of its own. */
class ClassifierViewModel(application: Application) : AndroidViewModel(application) {
    var screen: Screen by mutableStateOf(Screen())
        private set

    private val worker = Executors.newSingleThreadExecutor()
    private val runtime = modelRuntime()
    private var classifier: Classifier? = null // the worker's alone

    init {
        worker.execute {
            try {
                val opened = open(application)
                classifier = opened
                send(Event.Opened(describe(opened)))
            } catch (error: Exception) { // whatever it is, the user is to read it
                send(Event.NotOpened(reason(error)))
            }
        }
    }

    fun send(event: Event) {
        ContextCompat.getMainExecutor(getApplication()).execute { screen = reduce(screen, event) }
    }

    fun classify(uri: Uri) = ask { readImage(getApplication<Application>().contentResolver, uri, it.preprocess()) }

    /** A picture of the camera, which is closed. */
    fun classify(picture: ImageProxy) {
        if (!screen.ready) return picture.close()
        ask { picture.use { rgbImage(it.toBitmap(), Orientation.fromDegrees(it.imageInfo.rotationDegrees)) } }
    }

    fun runSelfTest() {
        if (!screen.ready) return
        screen = reduce(screen, Event.TestStarted)
        worker.execute {
            try {
                val opened = checkNotNull(classifier) { "no model is open" }
                val results = selfTest(opened.bundle, opened.artifact, runtime) { decodeImage(it, opened.preprocess()) }
                send(Event.TestDone(results.map(::row)))
            } catch (error: Exception) { // as above
                send(Event.TestFailed(reason(error)))
            }
        }
    }

    override fun onCleared() {
        worker.execute { classifier?.close() }
        worker.shutdown()
    }

    private fun open(application: Application): Classifier {
        val name = application.getString(R.string.bundle_name)
        val bundle = try {
            openBundle(application, name, bundleSource(application) { send(Event.Progress(it)) })
        } catch (error: IOException) {
            // no models are delivered now; those of an earlier start still do
            bundleStore(application, name).installed() ?: throw error
        }
        return Classifier.open(bundle, runtime)
    }

    private fun ask(image: (Classifier) -> RgbImage) {
        if (!screen.ready) return
        screen = reduce(screen, Event.Asked)
        val request = screen.request
        worker.execute {
            try {
                val opened = checkNotNull(classifier) { "no model is open" }
                send(Event.Answered(request, shown(opened.classify(image(opened)))))
            } catch (error: Exception) { // as above
                send(Event.Failed(request, reason(error)))
            }
        }
    }
}

private fun Classifier.preprocess() = bundle.manifest.preprocess

private fun describe(classifier: Classifier): Model {
    val (manifest, artifact) = Pair(classifier.bundle.manifest, classifier.artifact)
    return Model(
        bundle = "${manifest.name} ${manifest.version}",
        artifact = artifact.label,
        runtime = "${artifact.runtimeName} ${artifact.runtimeVersion}",
        verdict = artifact.verdict,
    )
}

private fun shown(answer: Answer) = Shown(
    guesses = answer.top.map { Guess(it.label, it.probability) },
    preprocessMillis = answer.preprocessMillis,
    modelMillis = answer.modelMillis,
)

private fun row(result: GoldenResult): TestRow {
    val shares = result.distances.map { it.difference / it.allowed }
    val share = shares.firstOrNull { it.isNaN() } ?: shares.max()
    return TestRow(result.file.substringAfterLast('/'), share, result.decoded, result.holds)
}

private fun reason(error: Exception): String = error.message ?: error.javaClass.simpleName
