package cspedge.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.charset.CharacterCodingException
import java.nio.file.Files
import java.nio.file.Path

/**
 * A bundle whose signature, digests and manifest have been checked.
 *
 * `vouched` is false where no key was given: then nobody stands for the bundle but whoever put it there.
 */
public class Bundle private constructor(
    public val folder: Path,
    public val manifest: Manifest,
    public val vouched: Boolean,
) {
    private val entries = manifest.files.associateBy { it.path }

    /** The bytes of a file, which are those of its digest; Refusal file-changed where they are not any more. */
    public fun read(path: String): ByteArray {
        val entry = requireNotNull(entries[path]) { "'$path' is not a file of the bundle" }
        val bytes = Files.readAllBytes(folder.resolve(path))
        if (sha256(bytes) != entry.sha256) throw changed(path)
        return bytes
    }

    /** The bytes of model.sig; null where there is none. */
    public fun signature(): ByteArray? {
        val file = folder.resolve(SIGNATURE_FILE)
        return if (Files.exists(file)) Files.readAllBytes(file) else null
    }

    /** Where an artifact lies, for runtimes that map it; its files are held against their digests now. */
    public fun artifactPath(artifact: Artifact): Path {
        for (path in artifact.files) {
            if (sha256(folder.resolve(path)) != entries.getValue(path).sha256) throw changed(path)
        }
        return folder.resolve(artifact.path)
    }

    /** Class names in the order of the outputs; empty where the model has none. Refusal labels-invalid. */
    public fun labels(): List<String> {
        val path = manifest.labels ?: return emptyList()
        val text = decodeUtf8(read(path)) ?: throw labelsInvalid("is not UTF-8")
        if (!text.endsWith("\n")) throw labelsInvalid("does not end with a line end")
        val lines = text.dropLast(1).split('\n')
        if (lines.size != manifest.numClasses) {
            throw labelsInvalid("has ${lines.size} lines for ${manifest.numClasses} classes")
        }
        return lines
    }

    /** The pixels of a golden image. Refusal: image-empty, image-too-large, image-invalid. */
    public fun goldenRgb(image: GoldenImage): RgbImage {
        manifest.preprocess.checkSize(image.width, image.height)
        return RgbImage(image.width, image.height, sized(image.rgb, 3L * image.width * image.height))
    }

    /** The tensor of a golden image, uint8 [3, H, W]. Refusal image-invalid. */
    public fun goldenTensor(image: GoldenImage): ByteArray =
        sized(image.tensor, 3L * manifest.preprocess.cropHeight * manifest.preprocess.cropWidth)

    /** The rows of a golden answer, one an image. Refusal artifact-refused where the file has another length. */
    internal fun goldenRows(golden: GoldenOutput, output: Output): List<FloatArray> {
        val count = manifest.goldenImages.size
        val bytes = sized(golden.file, 4L * output.size * count, RefusalKind.ARTIFACT_REFUSED)
        val values = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return List(count) { FloatArray(output.size).also { values.get(it) } }
    }

    private fun sized(
        path: String,
        bytes: Long,
        kind: RefusalKind = RefusalKind.IMAGE_INVALID,
    ): ByteArray = read(path).also {
        if (it.size.toLong() != bytes) {
            throw Refusal(kind, "'$path' has ${it.size} bytes; it must have $bytes")
        }
    }

    private fun labelsInvalid(what: String) = Refusal(RefusalKind.LABELS_INVALID, "'${manifest.labels}' $what")

    public companion object {
        /**
         * Checks a bundle's folder: names, with a key the signature, the manifest, every file's bytes (docs/bundle.md,
         * steps 1 to 5). The first failure is thrown as its Refusal. The folder must be one that nobody else writes to.
         */
        public fun open(folder: Path, key: VerifyingKey?): Bundle {
            val found = listBundle(folder)
            if (key != null) checkSigned(found, key)
            val bytes = Files.readAllBytes(found.getValue(MANIFEST_FILE).path)
            if (key != null && sha256(bytes) != found.getValue(MANIFEST_FILE).sha256) throw changed(MANIFEST_FILE)
            val manifest = Manifest.parse(bytes)
            checkListed(found, manifest)
            return Bundle(folder, manifest, key != null)
        }
    }
}

private fun checkSigned(found: Map<String, FoundFile>, key: VerifyingKey) {
    val file = found[SIGNATURE_FILE]
        ?: throw Refusal(
            RefusalKind.SIGNATURE_MISSING,
            "it has no $SIGNATURE_FILE; sign it, or do not ask for a key's word",
        )
    val signed = key.signedDigests(Files.readAllBytes(file.path))
    checkNames(found.keys - SIGNATURE_FILE, signed.keys, "its signature")
    for ((path, digest) in signed) if (found.getValue(path).sha256 != digest) throw changed(path)
}

private fun checkListed(found: Map<String, FoundFile>, manifest: Manifest) {
    val listed = manifest.files.associateBy { it.path }
    checkNames(found.keys - SIGNATURE_FILE - MANIFEST_FILE, listed.keys, MANIFEST_FILE)
    for ((path, entry) in listed) {
        val file = found.getValue(path)
        if (file.bytes != entry.bytes || file.sha256 != entry.sha256) throw changed(path)
    }
}

private fun checkNames(found: Set<String>, listed: Set<String>, by: String) {
    (listed - found).firstOrNull()?.let {
        throw Refusal(RefusalKind.FILE_MISSING, "'$it' is not there, and $by lists it")
    }
    (found - listed).firstOrNull()?.let {
        throw Refusal(RefusalKind.FILE_EXTRA, "'$it' is there, and $by does not list it")
    }
}

private fun changed(path: String) =
    Refusal(RefusalKind.FILE_CHANGED, "'$path' is not the file that was listed: its bytes have changed")

private fun decodeUtf8(bytes: ByteArray): String? = try {
    Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
} catch (error: CharacterCodingException) {
    null
}
