package cspedge.app

import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.layout.safeDrawingPadding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedButton
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.dp
import cspedge.app.state.Event
import cspedge.app.state.Page
import cspedge.app.state.Screen
import cspedge.app.state.Shown
import cspedge.app.state.TestRow
import java.util.Locale

@Composable
fun ClassifierScreen(model: ClassifierViewModel) {
    val screen = model.screen
    Column(
        modifier = Modifier.fillMaxSize().safeDrawingPadding().padding(16.dp),
        verticalArrangement = Arrangement.spacedBy(12.dp),
    ) {
        Header(screen)
        screen.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
        Pages(screen.page) { model.send(Event.PageChosen(it)) }
        when (screen.page) {
            Page.PICTURE -> PicturePage(model)
            Page.CAMERA -> CameraPage(screen.ready, model::classify)
            Page.SELF_TEST -> SelfTestPage(screen, model::runSelfTest)
        }
    }
}

@Composable
private fun Header(screen: Screen) {
    screen.progress?.let {
        Text(it)
        LinearProgressIndicator(Modifier.fillMaxWidth())
    }
    screen.model?.let {
        Text(it.bundle, style = MaterialTheme.typography.titleMedium)
        Text("${it.artifact}, made with ${it.runtime}; the report says: ${it.verdict}")
    }
}

@Composable
private fun Pages(page: Page, choose: (Page) -> Unit) {
    Row(horizontalArrangement = Arrangement.spacedBy(8.dp)) {
        for (entry in Page.entries) {
            OutlinedButton(onClick = { choose(entry) }, enabled = entry != page) { Text(entry.title) }
        }
    }
}

@Composable
private fun PicturePage(model: ClassifierViewModel) {
    val screen = model.screen
    val picker = rememberLauncherForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        uri?.let(model::classify) // null: the user chose none
    }
    Column(Modifier.verticalScroll(rememberScrollState()), verticalArrangement = Arrangement.spacedBy(8.dp)) {
        Button(
            onClick = { picker.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly)) },
            enabled = screen.ready,
        ) {
            Text("Choose a picture")
        }
        if (screen.busy) LinearProgressIndicator(Modifier.fillMaxWidth())
        screen.shown?.let { Guesses(it) }
        Medians(screen)
    }
}

@Composable
private fun Guesses(shown: Shown) {
    for (guess in shown.guesses) {
        Row(Modifier.fillMaxWidth(), horizontalArrangement = Arrangement.SpaceBetween) {
            Text(guess.label)
            Text(String.format(Locale.getDefault(), "%.1f %%", 100 * guess.probability))
        }
    }
    Text("preprocessing ${millis(shown.preprocessMillis)}, model ${millis(shown.modelMillis)}")
}

@Composable
private fun Medians(screen: Screen) {
    val preprocess = screen.medianPreprocess ?: return
    val model = screen.medianModel ?: return
    Text("median of ${screen.modelMillis.size}: preprocessing ${millis(preprocess)}, model ${millis(model)}")
}

@Composable
private fun SelfTestPage(screen: Screen, run: () -> Unit) {
    Column(Modifier.verticalScroll(rememberScrollState()), verticalArrangement = Arrangement.spacedBy(4.dp)) {
        Button(onClick = run, enabled = screen.ready) { Text("Replay golden/") }
        if (screen.testing) LinearProgressIndicator(Modifier.fillMaxWidth())
        screen.testHolds?.let {
            Text(if (it) "Every answer is within its tolerance" else "Not every answer is within its tolerance")
        }
        screen.test.forEach { TestLine(it) }
    }
}

@Composable
private fun TestLine(row: TestRow) {
    val share = String.format(Locale.getDefault(), "%.3f", row.share)
    val decoded = row.decoded?.let { String.format(Locale.getDefault(), "; decoding off by %.3f levels", it) }.orEmpty()
    val color = if (row.holds) MaterialTheme.colorScheme.onSurface else MaterialTheme.colorScheme.error
    Text("${row.image}: $share of the tolerance$decoded", color = color)
}

private fun millis(value: Double) = String.format(Locale.getDefault(), "%.1f ms", value)
