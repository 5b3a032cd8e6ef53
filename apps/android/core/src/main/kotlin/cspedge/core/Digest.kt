package cspedge.core

import java.nio.file.Files
import java.nio.file.Path
import java.security.MessageDigest

/** SHA-256 as 64 lower-case hexadecimal digits. */
public fun sha256(bytes: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(bytes).toHex()

/** SHA-256 of a file, read in pieces. */
public fun sha256(file: Path): String {
    val digest = MessageDigest.getInstance("SHA-256")
    Files.newInputStream(file).use { stream ->
        val buffer = ByteArray(1 shl 16)
        while (true) {
            val read = stream.read(buffer)
            if (read < 0) return digest.digest().toHex()
            digest.update(buffer, 0, read)
        }
    }
}

internal fun ByteArray.toHex(): String = joinToString("") { "%02x".format(it) }

/** The bytes of lower-case hexadecimal text of even length, or null where it is something else. */
internal fun hexBytes(text: String): ByteArray? {
    if (text.length % 2 != 0 || text.any { it !in "0123456789abcdef" }) return null
    return ByteArray(text.length / 2) { text.substring(2 * it, 2 * it + 2).toInt(16).toByte() }
}
