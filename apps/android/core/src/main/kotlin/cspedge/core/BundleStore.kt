package cspedge.core

import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption
import java.util.UUID

/** A bundle that was accepted, and what its golden images gave. */
public class Accepted(public val bundle: Bundle, public val report: GoldenReport)

/**
 * The bundles of one name that an app has accepted: a folder of the app's own, with the bundle in force below it and
 * a small file that names it. A new bundle takes its place in one rename, after all checks; the old one stays until
 * then.
 *
 * Not for use from two processes at once; within one, calls wait for each other.
 */
public class BundleStore(
    private val root: Path,
    private val name: String,
    private val key: VerifyingKey,
    private val oldest: Version = Version(0, 0, 0),
) {
    private class State(val folder: String, val version: Version, val floor: Version)

    /** The bundle in force, with its bytes checked again; null where none was accepted yet. */
    @Synchronized
    public fun installed(): Bundle? = state()?.let { Bundle.open(root.resolve(it.folder), key) }

    /**
     * Copies the bundle in `source` into the store, checks the copy and puts it in force.
     *
     * All checks of docs/bundle.md, then: the same name (other-bundle); not older than the one in force, than `oldest`
     * or than the largest minimum_version that was ever accepted (version-older). Whatever is refused leaves no trace.
     */
    @Synchronized
    public fun accept(source: Path, runtime: ModelRuntime?): Accepted {
        val before = state()
        Files.createDirectories(root)
        val folder = "bundle-${UUID.randomUUID()}"
        val staging = root.resolve("$STAGING$folder")
        try {
            copy(source, staging)
            val staged = Bundle.open(staging, key)
            checkVersion(staged.manifest, before)
            val report = replayGolden(staged, runtime)
            Files.move(staging, root.resolve(folder), StandardCopyOption.ATOMIC_MOVE)
            val floor = maxOf(staged.manifest.minimumVersion, before?.floor ?: Version(0, 0, 0))
            write(State(folder, staged.manifest.version, floor))
            removeStale(folder)
            return Accepted(Bundle.open(root.resolve(folder), key), report)
        } finally {
            staging.toFile().deleteRecursively()
        }
    }

    private fun checkVersion(manifest: Manifest, before: State?) {
        if (manifest.name != name) {
            throw Refusal(
                RefusalKind.OTHER_BUNDLE,
                "it is the bundle '${manifest.name}', and this is the place of '$name'",
            )
        }
        val least = listOfNotNull(oldest, before?.version, before?.floor).max()
        if (manifest.version < least) {
            throw Refusal(RefusalKind.VERSION_OLDER, "it has version ${manifest.version}; $least is the oldest allowed")
        }
    }

    /** Names and sizes are checked before a byte is copied, so that no link is followed and no disk filled. */
    private fun copy(source: Path, staging: Path) {
        for ((path, file) in listBundle(source)) {
            val target = staging.resolve(path)
            Files.createDirectories(target.parent)
            Files.copy(file.path, target)
        }
    }

    private fun state(): State? {
        val file = root.resolve(STATE)
        if (!Files.exists(file)) return null
        val fields = parseJson(Files.readAllBytes(file)).obj().fields
        return State(
            folder = fields.getValue("folder").text(),
            version = Version.parse(fields.getValue("version").text()),
            floor = Version.parse(fields.getValue("floor").text()),
        )
    }

    private fun write(state: State) {
        val fields = mapOf("folder" to state.folder, "version" to state.version, "floor" to state.floor)
        val text = fields.entries.joinToString(", ", "{", "}\n") { (name, value) -> "\"$name\": \"$value\"" }
        val temporary = root.resolve("$STAGING$STATE")
        Files.newByteChannel(temporary, WRITE).use { it.write(ByteBuffer.wrap(text.encodeToByteArray())) }
        Files.move(temporary, root.resolve(STATE), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING)
    }

    private fun removeStale(folder: String) {
        Files.newDirectoryStream(root).use { entries ->
            val stale = entries.filter { it.fileName.toString() !in setOf(folder, STATE) }
            stale.forEach { it.toFile().deleteRecursively() }
        }
    }

    private companion object {
        const val STATE = "installed.json"
        const val STAGING = ".staging-"
        val WRITE = setOf(
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE,
            StandardOpenOption.SYNC,
        )
    }
}
