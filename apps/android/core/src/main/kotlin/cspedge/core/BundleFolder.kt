package cspedge.core

import java.nio.file.FileVisitResult
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.SimpleFileVisitor
import java.nio.file.attribute.BasicFileAttributes
import java.util.TreeMap

internal const val MAX_FILES: Int = 4096
internal const val MAX_BYTES: Long = 2L shl 30
internal const val MAX_TEXT: Long = 4L shl 20

/** A file that is there: its size now, and its digest, taken once. */
internal class FoundFile(val path: Path, val bytes: Long) {
    val sha256: String by lazy { sha256(path) }
}

/**
 * The files of a bundle's folder by their paths in it, in order.
 *
 * Refusal: not-a-bundle, path-unsafe, link, name-collision, file-extra, too-large. Nothing but names and sizes is read.
 */
internal fun listBundle(root: Path): Map<String, FoundFile> {
    if (!Files.isRegularFile(root.resolve(MANIFEST_FILE), LinkOption.NOFOLLOW_LINKS)) {
        throw Refusal(RefusalKind.NOT_A_BUNDLE, "'${root.fileName}' is no folder with a $MANIFEST_FILE")
    }
    val found = TreeMap<String, FoundFile>()
    Files.walkFileTree(root, Lister(root, found))
    checkTwins(found.keys)
    if (found.values.sumOf { it.bytes } > MAX_BYTES) throw Refusal(RefusalKind.TOO_LARGE, "it has more than 2 GiB")
    for (name in listOf(MANIFEST_FILE, SIGNATURE_FILE)) {
        if ((found[name]?.bytes ?: 0) > MAX_TEXT) throw Refusal(RefusalKind.TOO_LARGE, "$name has more than 4 MiB")
    }
    return found
}

private class Lister(private val root: Path, private val found: MutableMap<String, FoundFile>) :
    SimpleFileVisitor<Path>() {
    override fun preVisitDirectory(folder: Path, attributes: BasicFileAttributes): FileVisitResult {
        if (folder != root) {
            checkPath(name(folder))
            val empty = Files.newDirectoryStream(folder).use { !it.iterator().hasNext() }
            if (empty) throw Refusal(RefusalKind.FILE_EXTRA, "'${name(folder)}' is an empty folder")
        }
        return FileVisitResult.CONTINUE
    }

    override fun visitFile(file: Path, attributes: BasicFileAttributes): FileVisitResult {
        val name = name(file)
        checkPath(name)
        if (!attributes.isRegularFile) {
            throw Refusal(RefusalKind.LINK, "'$name' is a link or a device; a bundle holds plain files only")
        }
        if (found.size == MAX_FILES) throw Refusal(RefusalKind.TOO_LARGE, "it has more than $MAX_FILES files")
        found[name] = FoundFile(file, attributes.size())
        return FileVisitResult.CONTINUE
    }

    private fun name(path: Path) = root.relativize(path).joinToString("/")
}
