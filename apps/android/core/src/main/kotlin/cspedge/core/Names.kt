package cspedge.core

internal const val MAX_PATH: Int = 240
private val PART = Regex("[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")

/** Whether a path may stand in a bundle: relative, `/` between parts, ASCII letters, digits, `.`, `_`, `-` only. */
public fun isSafePath(path: String): Boolean =
    path.length in 1..MAX_PATH && path.split('/').all { PART.matches(it) }

internal fun checkPath(path: String) {
    if (isSafePath(path)) return
    throw Refusal(
        RefusalKind.PATH_UNSAFE,
        "the path '${path.take(MAX_PATH)}' may not stand in a bundle; allowed are relative paths of at most " +
            "$MAX_PATH characters, A-Z a-z 0-9 . _ - and '/', no part beginning with '.' or '-' or ending with '.'",
    )
}

/** Refuses two files or folders that some file systems take for one: equal but for case, or a file and a folder. */
internal fun checkTwins(paths: Collection<String>) {
    val files = HashMap<String, String>()
    val folders = HashMap<String, String>()
    for (path in paths) {
        files.put(asciiLowercase(path), path)?.let { throw twins(it, path) }
        var folder = path
        while ('/' in folder) {
            folder = folder.substringBeforeLast('/')
            val twin = folders.getOrPut(asciiLowercase(folder)) { folder }
            if (twin != folder) throw twins(twin, folder)
        }
    }
    (files.keys intersect folders.keys).firstOrNull()?.let { throw twins(files.getValue(it), folders.getValue(it)) }
}

private fun twins(one: String, other: String) =
    Refusal(RefusalKind.NAME_COLLISION, "it holds '$one' and '$other', which are one name to some file systems")

private fun asciiLowercase(path: String): String = buildString(path.length) {
    for (char in path) append(if (char in 'A'..'Z') char + ('a' - 'A') else char)
}
