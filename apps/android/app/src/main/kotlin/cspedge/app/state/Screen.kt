package cspedge.app.state

import cspedge.core.median

/** A class and its probability, as shown. */
data class Guess(val label: String, val probability: Double)

/** What one image gave; times in milliseconds. */
data class Shown(val guesses: List<Guess>, val preprocessMillis: Double, val modelMillis: Double)

/** What is running: bundle, artifact (`target/precision`), runtime with the version it was made with, verdict. */
data class Model(val bundle: String, val artifact: String, val runtime: String, val verdict: String)

/** One golden image of the self-test, as shown. `share`: the distance, where 1 is the tolerance; NaN: not finite. */
data class TestRow(val image: String, val share: Double, val decoded: Double?, val holds: Boolean)

/**
 * Everything that the sample app shows, as plain values. Nothing here knows Android, so it is tested without a device.
 *
 * `request` counts the images that were asked about: an answer to an older one is not shown.
 */
data class Screen(
    val model: Model? = null,
    val progress: String? = "Opening the model",
    val request: Int = 0,
    val busy: Boolean = false,
    val shown: Shown? = null,
    val error: String? = null,
    val preprocessMillis: List<Double> = emptyList(),
    val modelMillis: List<Double> = emptyList(),
    val page: Page = Page.PICTURE,
    val testing: Boolean = false,
    val test: List<TestRow> = emptyList(),
) {
    /** Whether a picture may be asked about now. */
    val ready: Boolean get() = model != null && !busy && !testing

    val medianPreprocess: Double? get() = median(preprocessMillis)
    val medianModel: Double? get() = median(modelMillis)

    /** Null where no self-test ran to its end. */
    val testHolds: Boolean? get() = if (test.isEmpty() || testing) null else test.all { it.holds }
}

enum class Page(val title: String) {
    PICTURE("Picture"),
    CAMERA("Camera"),
    SELF_TEST("Self-test"),
}

sealed interface Event {
    data class Progress(val text: String) : Event
    data class Opened(val model: Model) : Event

    /** The bundle could not be opened: there is nothing to show but the reason. */
    data class NotOpened(val reason: String) : Event
    data class PageChosen(val page: Page) : Event

    /** An image was chosen; its answer carries the number that `Screen.request` then has. */
    data object Asked : Event
    data class Answered(val request: Int, val shown: Shown) : Event
    data class Failed(val request: Int, val reason: String) : Event
    data object TestStarted : Event
    data class TestDone(val rows: List<TestRow>) : Event
    data class TestFailed(val reason: String) : Event
}

/** How many of the last images the medians are of. */
const val KEPT: Int = 100

/** What the screen is after an event. Events that are not possible now, or come too late, change nothing. */
fun reduce(screen: Screen, event: Event): Screen = when (event) {
    is Event.Progress -> if (screen.model == null) screen.copy(progress = event.text) else screen
    is Event.Opened -> screen.copy(model = event.model, progress = null, error = null)
    is Event.NotOpened -> screen.copy(model = null, progress = null, error = event.reason)
    is Event.PageChosen -> screen.copy(page = event.page)
    is Event.Asked -> if (screen.ready) asked(screen) else screen
    is Event.Answered -> if (current(screen, event.request)) answered(screen, event.shown) else screen
    is Event.Failed ->
        if (current(screen, event.request)) screen.copy(busy = false, error = event.reason) else screen
    is Event.TestStarted -> if (screen.ready) screen.copy(testing = true, test = emptyList(), error = null) else screen
    is Event.TestDone -> if (screen.testing) screen.copy(testing = false, test = event.rows) else screen
    is Event.TestFailed -> if (screen.testing) screen.copy(testing = false, error = event.reason) else screen
}

private fun current(screen: Screen, request: Int) = screen.busy && screen.request == request

private fun asked(screen: Screen) = screen.copy(
    request = screen.request + 1,
    busy = true,
    shown = null,
    error = null,
    page = Page.PICTURE,
)

private fun answered(screen: Screen, shown: Shown) = screen.copy(
    busy = false,
    shown = shown,
    preprocessMillis = (screen.preprocessMillis + shown.preprocessMillis).takeLast(KEPT),
    modelMillis = (screen.modelMillis + shown.modelMillis).takeLast(KEPT),
)
