package cspedge.core

import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption

internal const val BUFFER: Int = 1 shl 16

/**
 * Writes a new file and makes it durable; its folders are made. Returns its bytes.
 *
 * Refusal too-large above `limit` bytes: what a source says about its size is not believed.
 */
internal fun writeDurably(stream: InputStream, target: Path, limit: Long): Long {
    Files.createDirectories(target.parent)
    FileChannel.open(target, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE).use { channel ->
        val buffer = ByteArray(BUFFER)
        var written = 0L
        while (true) {
            val read = stream.read(buffer)
            if (read < 0) break
            written += read
            if (written > limit) throw Refusal(RefusalKind.TOO_LARGE, "'${target.fileName}' is larger than was said")
            write(channel, ByteBuffer.wrap(buffer, 0, read))
        }
        channel.force(true)
        return written
    }
}

/** Replaces a small file in one step: a reader sees the old bytes or the new ones, also after the power failed. */
internal fun replaceDurably(bytes: ByteArray, temporary: Path, target: Path) {
    val options = setOf(StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE)
    FileChannel.open(temporary, options).use {
        write(it, ByteBuffer.wrap(bytes))
        it.force(true)
    }
    Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING)
    syncFolder(target.parent)
}

/** Makes the names of all folders at and below `root` durable. */
internal fun syncFolders(root: Path) {
    Files.walk(root).use { paths -> paths.filter { Files.isDirectory(it) }.forEach(::syncFolder) }
}

/** Makes the names in a folder durable, where the system lets a folder be opened: a rename is one step in any case. */
internal fun syncFolder(folder: Path) {
    val channel = try {
        FileChannel.open(folder, StandardOpenOption.READ)
    } catch (error: IOException) {
        return
    }
    channel.use { it.force(true) }
}

/** Removes a file or a folder with all in it; IOException where something stays. */
internal fun remove(path: Path) {
    if (!path.toFile().deleteRecursively()) throw IOException("'${path.fileName}' cannot be removed")
}

private fun write(channel: FileChannel, bytes: ByteBuffer) {
    while (bytes.hasRemaining()) channel.write(bytes)
}
