package cspedge.app

import android.util.Log
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import cspedge.core.Classifier
import cspedge.core.median
import cspedge.core.runnable
import cspedge.core.selfTest
import cspedge.models.decodeImage
import cspedge.models.modelRuntime
import cspedge.models.openBundle
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Replays golden/ on a device, through the app's own path: assets, checks, decoder, resize, runtime. */
@RunWith(AndroidJUnit4::class)
class GoldenTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext
    private val runtime = modelRuntime()

    private fun bundle() = openBundle(context, context.getString(R.string.bundle_name), bundleSource(context) {})

    @Test
    fun everyArtifactGivesItsGoldenAnswers() {
        val bundle = bundle()
        val artifacts = runnable(bundle.manifest, runtime)
        assertEquals("every artifact runs here", bundle.manifest.artifacts.size, artifacts.size)
        for (artifact in artifacts) {
            val results = selfTest(bundle, artifact, runtime) { decodeImage(it, bundle.manifest.preprocess) }
            results.forEach { Log.i("cspedge", "${artifact.label}: $it") }
            assertEquals("${artifact.label} is off", emptyList<String>(), results.filterNot { it.holds }.map { it.file })
        }
    }

    @Test
    fun latency() {
        val bundle = bundle()
        val image = bundle.goldenRgb(bundle.manifest.goldenImages.first())
        for (artifact in runnable(bundle.manifest, runtime)) {
            Classifier.open(bundle, runtime, artifact).use { classifier ->
                val answers = List(110) { classifier.classify(image) }.drop(10) // the first ones warm up
                val model = checkNotNull(median(answers.map { it.modelMillis }))
                val preprocess = median(answers.map { it.preprocessMillis })
                Log.i("cspedge", "${artifact.label}: model $model ms, preprocessing $preprocess ms, medians of 100")
                assertTrue(model > 0)
            }
        }
    }
}
