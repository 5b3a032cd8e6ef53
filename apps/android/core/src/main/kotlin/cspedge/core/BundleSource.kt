package cspedge.core

import java.io.ByteArrayOutputStream
import java.io.FileNotFoundException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path

/** Where a bundle comes from before it is accepted. Nothing of it is trusted. */
public interface BundleSource {
    /** The bytes of its model.sig, which stand for all of it; null where it has none. */
    public fun signature(): ByteArray?

    /** Copies its files into `folder`, which is there and empty. Refusal where a name or a size may not be. */
    public fun copyTo(folder: Path)
}

/** A bundle in a folder: a download, an AI pack of Google Play. */
public class FolderSource(private val folder: Path) : BundleSource {
    override fun signature(): ByteArray? {
        val file = listBundle(folder)[SIGNATURE_FILE] ?: return null
        return Files.readAllBytes(file.path)
    }

    /** Names and sizes are checked before a byte is copied, so that no link is followed and no disk filled. */
    override fun copyTo(folder: Path) {
        for ((path, file) in listBundle(this.folder)) {
            Files.newInputStream(file.path).use { writeDurably(it, folder.resolve(path), file.bytes) }
        }
    }
}

/** What an app packs beside its code; Android's AssetManager is one. Paths have `/` between their parts. */
public interface AssetTree {
    /** The names right below a folder; empty for a file and for what is not there. */
    public fun list(path: String): List<String>

    /** The bytes of a file; FileNotFoundException where there is none. */
    public fun open(path: String): InputStream
}

/** A bundle among an app's assets, in the folder `root`. */
public class AssetSource(private val assets: AssetTree, private val root: String) : BundleSource {
    override fun signature(): ByteArray? {
        if (SIGNATURE_FILE !in assets.list(root)) return null
        val bytes = assets.open("$root/$SIGNATURE_FILE").use { it.readNBytesAtMost(MAX_TEXT + 1) }
        if (bytes.size > MAX_TEXT) throw Refusal(RefusalKind.TOO_LARGE, "$SIGNATURE_FILE has more than 4 MiB")
        return bytes
    }

    override fun copyTo(folder: Path) {
        val paths = files("")
        if (MANIFEST_FILE !in paths) {
            throw Refusal(RefusalKind.NOT_A_BUNDLE, "the app's assets have no '$root/$MANIFEST_FILE'")
        }
        if (paths.size > MAX_FILES) throw Refusal(RefusalKind.TOO_LARGE, "it has more than $MAX_FILES files")
        paths.forEach(::checkPath)
        checkTwins(paths)
        var left = MAX_BYTES
        for (path in paths) {
            left -= assets.open("$root/$path").use { writeDurably(it, folder.resolve(path), left) }
        }
    }

    private fun files(below: String): List<String> = assets.list(root + below).sorted().flatMap { name ->
        val path = "$below/$name"
        if (path.length > MAX_PATH + 1) throw Refusal(RefusalKind.PATH_UNSAFE, "the path '$path' is too long")
        files(path).ifEmpty { listOf(path.drop(1)) }
    }
}

/** A folder as assets, for programs on the JVM. */
public class FolderAssets(private val root: Path) : AssetTree {
    override fun list(path: String): List<String> {
        val folder = root.resolve(path)
        if (!Files.isDirectory(folder)) return emptyList()
        return Files.newDirectoryStream(folder).use { entries -> entries.map { it.fileName.toString() } }
    }

    override fun open(path: String): InputStream {
        val file = root.resolve(path)
        if (!Files.isRegularFile(file)) throw FileNotFoundException("'$path' is no file of these assets")
        return Files.newInputStream(file)
    }
}

private fun InputStream.readNBytesAtMost(count: Long): ByteArray {
    val out = ByteArrayOutputStream()
    val buffer = ByteArray(BUFFER)
    while (out.size() < count) {
        val read = read(buffer, 0, minOf(buffer.size.toLong(), count - out.size()).toInt())
        if (read < 0) break
        out.write(buffer, 0, read)
    }
    return out.toByteArray()
}
