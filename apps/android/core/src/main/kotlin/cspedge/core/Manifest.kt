package cspedge.core

/** A bundle's version: three integers, compared number by number. */
public data class Version(val major: Int, val minor: Int, val patch: Int) : Comparable<Version> {
    override fun compareTo(other: Version): Int =
        compareValuesBy(this, other, Version::major, Version::minor, Version::patch)

    override fun toString(): String = "$major.$minor.$patch"

    public companion object {
        private val FORM = Regex("(0|[1-9][0-9]{0,8})\\.(0|[1-9][0-9]{0,8})\\.(0|[1-9][0-9]{0,8})")

        /** From `MAJOR.MINOR.PATCH`; IllegalArgumentException for another form. */
        public fun parse(text: String): Version {
            require(FORM.matches(text)) { "'$text' is no version; MAJOR.MINOR.PATCH is needed" }
            val (major, minor, patch) = text.split('.').map { it.toInt() }
            return Version(major, minor, patch)
        }
    }
}

public data class FileEntry(val path: String, val bytes: Long, val sha256: String)

/** One output of the model: `shape` begins with 1; `values`: logits, features or embedding. */
public data class Output(val name: String, val shape: List<Int>, val values: String) {
    internal val size: Int get() = shape.fold(1, Int::times)
}

/** What an output must be on the golden images, and the largest allowed difference of any value (null: reference). */
public data class GoldenOutput(val output: String, val file: String, val maxAbs: Double?)

/** `inputShape`: [1, 3, H, W]; `runtimeOptions`: what the runtime is to be opened with, as text (`true`). */
public data class Artifact(
    val target: String,
    val backend: String,
    val precision: String,
    val path: String,
    val files: List<String>,
    val inputShape: List<Int>,
    val runtimeName: String,
    val runtimeVersion: String,
    val runtimeOptions: Map<String, String>,
    val verdict: String,
    val golden: List<GoldenOutput>,
) {
    public val label: String get() = "$target/$precision"
}

public data class GoldenImage(
    val file: String,
    val rgb: String,
    val tensor: String,
    val width: Int,
    val height: Int,
    val label: Int?,
)

/** manifest.json, schema 1: what an app needs of it. All of it has been checked against the schema. */
public data class Manifest(
    val name: String,
    val version: Version,
    val minimumVersion: Version,
    val numClasses: Int,
    val labels: String?,
    val preprocess: Preprocess,
    val outputs: List<Output>,
    val artifacts: List<Artifact>,
    val goldenImages: List<GoldenImage>,
    val files: List<FileEntry>,
) {
    public companion object {
        /** Refusal: manifest-invalid, schema-newer, unknown-field. */
        public fun parse(bytes: ByteArray): Manifest {
            val root = try {
                parseJson(bytes) as? JsonObject ?: throw invalid("is no object")
            } catch (error: JsonException) {
                throw Refusal(RefusalKind.MANIFEST_INVALID, "$MANIFEST_FILE is not JSON: ${error.message}", error)
            }
            val schema = root.fields["schema"] as? JsonNumber
            if (schema == null || !schema.isInteger) throw invalid("has no number of its schema")
            if (schema.value > 1) {
                throw Refusal(
                    RefusalKind.SCHEMA_NEWER,
                    "$MANIFEST_FILE has schema ${schema.value.toLong()}, and this app reads schema 1; update the app",
                )
            }
            SCHEMA.check(root, MANIFEST_FILE)
            return read(root).also { checkRules(it, root) }
        }
    }
}

internal const val MANIFEST_FILE: String = "manifest.json"

private val SCHEMA: Schema by lazy {
    val stream = Manifest::class.java.getResourceAsStream("/bundle.schema.json")
        ?: error("bundle.schema.json is not among the resources of this program")
    Schema(parseJson(stream.use { it.readBytes() }).obj())
}

private fun read(root: JsonObject): Manifest {
    val model = root["model"].obj()
    val inputShape = root["input"].obj()["shape"].list().map { it.int() }
    return Manifest(
        name = root["name"].text(),
        version = Version.parse(root["version"].text()),
        minimumVersion = Version.parse(root["minimum_version"].text()),
        numClasses = model["num_classes"].int(),
        labels = (model["labels"] as? JsonString)?.value,
        preprocess = Preprocess.read(root["preprocess"].obj()),
        outputs = root["outputs"].objects().map { output ->
            Output(output["name"].text(), output["shape"].list().map { it.int() }, output["values"].text())
        },
        artifacts = root["artifacts"].objects().map { readArtifact(it, inputShape) },
        goldenImages = root["golden"].obj()["images"].objects().map(::readImage),
        files = root["files"].objects().map {
            FileEntry(it["path"].text(), it["bytes"].num().toLong(), it["sha256"].text())
        },
    )
}

private fun readArtifact(entry: JsonObject, inputShape: List<Int>): Artifact = Artifact(
    target = entry["target"].text(),
    backend = entry["backend"].text(),
    precision = entry["precision"].text(),
    path = entry["path"].text(),
    files = entry["files"].list().map { it.text() },
    inputShape = inputShape,
    runtimeName = entry["runtime"].obj()["name"].text(),
    runtimeVersion = entry["runtime"].obj()["version"].text(),
    runtimeOptions = entry["runtime"].obj()["options"].obj().fields.mapValues { optionText(it.value) },
    verdict = entry["evidence"].obj()["verdict"].text(),
    golden = readGolden(entry["golden"]),
)

private fun optionText(value: JsonValue): String = when (value) {
    is JsonString -> value.value
    is JsonBool -> value.value.toString()
    else -> value.num().toString()
}

private fun readGolden(entries: JsonValue): List<GoldenOutput> = entries.objects().map {
    GoldenOutput(it["output"].text(), it["file"].text(), (it.fields["max_abs"] as? JsonNumber)?.value)
}

private fun readImage(entry: JsonObject): GoldenImage = GoldenImage(
    file = entry["file"].text(),
    rgb = entry["rgb"].text(),
    tensor = entry["tensor"].text(),
    width = entry["width"].int(),
    height = entry["height"].int(),
    label = (entry["label"] as? JsonNumber)?.int(),
)

/** The rules between fields, which a JSON Schema cannot say. */
private fun checkRules(manifest: Manifest, root: JsonObject) {
    val contract = manifest.preprocess
    if (manifest.minimumVersion > manifest.version) throw invalid("has a minimum_version above its version")
    if (root["input"].obj()["shape"].list().map { it.int() } != listOf(1, 3, contract.cropHeight, contract.cropWidth)) {
        throw invalid("has an input.shape that is not [1, 3, crop.height, crop.width]")
    }
    if (contract.rule == ResizeRule.SHORTER_EDGE && contract.height != contract.width) {
        throw invalid("has the rule 'shorter-edge' with two different edges")
    }
    val listed = manifest.files.map { it.path }.toSet()
    if (listed.size < manifest.files.size) throw invalid("lists a file twice")
    val names = manifest.outputs.map { it.name }
    val labels = manifest.artifacts.map { it.label }
    if (labels.toSet().size < labels.size) throw invalid("names an artifact twice")
    for (artifact in manifest.artifacts) {
        if (artifact.files.any { it != artifact.path && !it.startsWith(artifact.path + "/") }) {
            throw invalid("gives ${artifact.label} a file outside its path")
        }
    }
    val reference = readGolden(root["golden"].obj()["reference"])
    for (golden in manifest.artifacts.map { it.golden } + listOf(reference)) {
        if (golden.map { it.output } != names) throw invalid("has golden answers for other outputs than the model's")
    }
    val named = manifest.artifacts.flatMap { artifact -> artifact.files + artifact.golden.map { it.file } } +
        manifest.goldenImages.flatMap { listOf(it.file, it.rgb, it.tensor) } + reference.map { it.file } +
        root["licenses"].obj()["files"].list().map { it.text() } + listOfNotNull(manifest.labels)
    val unlisted = named.firstOrNull { it !in listed } ?: return
    throw invalid("names '$unlisted', which is not in its list of files")
}

private fun invalid(what: String) = Refusal(RefusalKind.MANIFEST_INVALID, "$MANIFEST_FILE $what")

// The schema has been checked, so a field that is missing here is an error of this program.
internal operator fun JsonObject.get(name: String): JsonValue = fields.getValue(name)

private fun JsonValue.objects(): List<JsonObject> = list().map { it.obj() }

internal fun JsonValue.int(): Int {
    val number = num()
    if (number < Int.MIN_VALUE || number > Int.MAX_VALUE) throw invalid("has the number $number, which is too large")
    return number.toInt()
}
