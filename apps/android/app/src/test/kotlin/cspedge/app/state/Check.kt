package cspedge.app.state

import java.nio.file.Files
import java.nio.file.Paths

/**
 * Sends the events of a file, one a line, to the screen and prints what it then shows, one JSON value a line: what
 * Python's tests look at. `answered 1 2.5 9`: request, milliseconds of preprocessing and of the model.
 */
fun main(arguments: Array<String>) {
    var screen = Screen()
    for (line in Files.readAllLines(Paths.get(arguments.single()))) {
        screen = reduce(screen, event(line.split(' ')))
        println(describe(screen))
    }
}

private fun event(words: List<String>): Event = when (words.first()) {
    "progress" -> Event.Progress(words[1])
    "opened" -> Event.Opened(Model("model 1.0.0", "onnxruntime/int8", "onnxruntime 1", "ship"))
    "not-opened" -> Event.NotOpened(words[1])
    "page" -> Event.PageChosen(Page.valueOf(words[1]))
    "asked" -> Event.Asked
    "answered" -> Event.Answered(
        words[1].toInt(),
        Shown(listOf(Guess("label", 1.0)), words[2].toDouble(), words[3].toDouble()),
    )
    "failed" -> Event.Failed(words[1].toInt(), words[2])
    "test" -> Event.TestStarted
    "tested" -> Event.TestDone(words.drop(1).map { TestRow("00.png", it.toDouble(), 0.0, it.toDouble() <= 1) })
    "test-failed" -> Event.TestFailed(words[1])
    else -> error("unknown event '${words.first()}'")
}

private fun describe(screen: Screen): String {
    val fields = mapOf(
        "ready" to screen.ready,
        "progress" to screen.progress?.let { "\"$it\"" },
        "page" to "\"${screen.page}\"",
        "request" to screen.request,
        "busy" to screen.busy,
        "shown" to screen.shown?.modelMillis,
        "error" to screen.error?.let { "\"$it\"" },
        "medians" to listOf(screen.medianPreprocess, screen.medianModel),
        "samples" to screen.modelMillis.size,
        "testing" to screen.testing,
        "test_holds" to screen.testHolds,
    )
    return fields.entries.joinToString(", ", "{", "}") { (name, value) -> "\"$name\": $value" }
}
