package cspedge.core

import java.nio.file.Files
import java.nio.file.Paths

/**
 * Runs a list of jobs through the core and prints one JSON value a line: what Python's tests compare with.
 * The Swift package has the same program, with the same jobs.
 */
public fun main(arguments: Array<String>) {
    val jobs = parseJson(Files.readAllBytes(Paths.get(arguments.single()))).list()
    for (job in jobs) {
        println(
            try {
                run(job.obj())
            } catch (refusal: Refusal) {
                "{\"kind\": ${quoted(refusal.kind.word)}, \"message\": ${quoted(refusal.message.orEmpty())}}"
            },
        )
    }
}

private fun run(job: JsonObject): String = when (val task = job["do"].text()) {
    "preprocess" -> preprocess(job)
    "verify" -> {
        val bundle = Bundle.open(Paths.get(job["bundle"].text()), key(job))
        report(replayGolden(bundle, runtime(job, bundle.manifest)))
    }
    "accept" -> accept(job)
    "installed" -> {
        val bundle = store(job).installed()
        if (bundle == null) "null" else quoted(bundle.manifest.version.toString())
    }
    "top" -> top(job)
    "provide" -> provide(job)
    "classify" -> classify(job)
    "self-test" -> selfTest(job)
    "orient" -> orient(job)
    "median" -> median(job["samples"].list().map { it.num() }).toString()
    else -> error("unknown job '$task'")
}

private fun preprocess(job: JsonObject): String {
    val pixels = Files.readAllBytes(Paths.get(job["rgb"].text()))
    val image = RgbImage(job["width"].int(), job["height"].int(), pixels)
    // through Android's packed pixels, with an alpha that must be dropped
    val argb = IntArray(image.width * image.height) {
        val (r, g, b) = List(3) { channel -> pixels[3 * it + channel].toInt() and 0xff }
        ((it % 256) shl 24) or (r shl 16) or (g shl 8) or b
    }
    val tensor = Preprocess.read(job["preprocess"].obj()).tensor(RgbImage.fromArgb(image.width, image.height, argb))
    Files.write(Paths.get(job["out"].text()), tensor)
    return "{\"sha256\": ${quoted(sha256(tensor))}}"
}

private fun accept(job: JsonObject): String {
    val source = Paths.get(job["bundle"].text())
    val manifest = source.resolve(MANIFEST_FILE)
    val runtime = if ("runtime" in job.fields) runtime(job, Manifest.parse(Files.readAllBytes(manifest))) else null
    return report(store(job).accept(source, runtime).report)
}

private fun store(job: JsonObject): BundleStore =
    BundleStore(Paths.get(job["store"].text()), job["name"].text(), requireNotNull(key(job)))

private fun top(job: JsonObject): String {
    val logits = floats(Files.readAllBytes(Paths.get(job["logits"].text())))
    val labels = job["labels"].list().map { it.text() }
    return topK(logits, labels, job["count"].int()).joinToString(", ", "[", "]") {
        "[${it.index}, ${quoted(it.label)}, ${it.probability}]"
    }
}

private fun key(job: JsonObject): VerifyingKey? =
    (job.fields["key"] as? JsonString)?.let { VerifyingKey.fromPem(Files.readAllBytes(Paths.get(it.value)).decodeToString()) }

private fun report(report: GoldenReport): String {
    val largest = report.largest.entries.joinToString(", ") { "${quoted(it.key)}: ${it.value}" }
    return "{\"largest\": {$largest}, \"not_run\": [${report.notRun.joinToString(", ") { quoted(it) }}]}"
}

private fun quoted(text: String): String = buildString {
    append('"')
    for (char in text) {
        if (char == '"' || char == '\\' || char < ' ') append("\\u%04x".format(char.code)) else append(char)
    }
    append('"')
}

private fun quotedList(texts: List<String>): String = texts.joinToString(", ", "[", "]") { quoted(it) }

/** A start of the app: the bundle among its assets, unpacked where that is needed. */
private fun provide(job: JsonObject): String {
    val assets = FolderAssets(Paths.get(job["assets"].text()))
    val root = job["root"].text()
    val manifest = Manifest.parse(assets.open("$root/$MANIFEST_FILE").use { it.readBytes() })
    val bundle = store(job).provide(AssetSource(assets, root), runtime(job, manifest))
    val version = bundle.manifest.version.toString()
    return "{\"version\": ${quoted(version)}, \"folder\": ${quoted(bundle.folder.toString())}}"
}

private fun classify(job: JsonObject): String {
    val bundle = Bundle.open(Paths.get(job["bundle"].text()), key(job))
    val runtime = Runtimes(listOfNotNull(runtime(job, bundle.manifest)))
    val pixels = Files.readAllBytes(Paths.get(job["rgb"].text()))
    val image = RgbImage(job["width"].int(), job["height"].int(), pixels)
    return Classifier.open(bundle, runtime).use { classifier ->
        val answer = classifier.classify(image)
        check(answer.preprocessMillis > 0 && answer.modelMillis > 0) { "a step that takes no time was not measured" }
        val top = answer.top.joinToString(", ", "[", "]") { "[${it.index}, ${quoted(it.label)}, ${it.probability}]" }
        "{\"artifact\": ${quoted(classifier.artifact.label)}, \"top\": $top, " +
            "\"runnable\": ${quotedList(runnable(bundle.manifest, runtime).map { it.label })}}"
    }
}

private fun selfTest(job: JsonObject): String {
    val bundle = Bundle.open(Paths.get(job["bundle"].text()), key(job))
    val runtime = requireNotNull(runtime(job, bundle.manifest))
    // a decoder that is off by `shift` levels everywhere: the pixels come from golden/, since the JVM is no phone
    val shift = job["shift"].int()
    val golden = bundle.manifest.goldenImages.iterator()
    val results = selfTest(bundle, runnable(bundle.manifest, runtime).first(), runtime) {
        val rgb = bundle.goldenRgb(golden.next())
        RgbImage(rgb.width, rgb.height, ByteArray(rgb.pixels.size) { index -> shifted(rgb.pixels[index], shift) })
    }
    return results.joinToString(", ", "[", "]") { result ->
        val distance = result.distances.single()
        "{\"file\": ${quoted(result.file)}, \"holds\": ${result.holds}, \"tensor\": ${result.tensorHolds}, " +
            "\"decoded\": ${result.decoded}, \"difference\": ${distance.difference}, \"allowed\": ${distance.allowed}}"
    }
}

private fun shifted(sample: Byte, by: Int): Byte = ((sample.toInt() and 0xff) + if (sample < 0) -by else by).toByte()

private fun orient(job: JsonObject): String {
    val pixels = Files.readAllBytes(Paths.get(job["rgb"].text()))
    val image = RgbImage(job["width"].int(), job["height"].int(), pixels)
    val upright = Orientation.fromExif(job["exif"].int()).upright(image)
    Files.write(Paths.get(job["out"].text()), upright.pixels)
    return "[${upright.width}, ${upright.height}]"
}
