package cspedge.core

import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
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

    /** `accept` of the bundle in a folder. */
    public fun accept(source: Path, runtime: ModelRuntime?): Accepted = accept(FolderSource(source), runtime)

    /**
     * Copies a bundle into the store, checks the copy and puts it in force.
     *
     * All checks of docs/bundle.md, then: the same name (other-bundle); not older than the one in force, than `oldest`
     * or than the largest minimum_version that was ever accepted (version-older). Whatever is refused leaves no trace,
     * and what a killed process left goes with the next call.
     */
    @Synchronized
    public fun accept(source: BundleSource, runtime: ModelRuntime?): Accepted {
        val before = state()
        Files.createDirectories(root)
        removeStale(before)
        val folder = "bundle-${UUID.randomUUID()}"
        val staging = root.resolve("$STAGING$folder")
        try {
            Files.createDirectory(staging)
            source.copyTo(staging)
            val staged = Bundle.open(staging, key)
            checkVersion(staged.manifest, before)
            val report = replayGolden(staged, runtime)
            syncFolders(staging)
            Files.move(staging, root.resolve(folder), StandardCopyOption.ATOMIC_MOVE)
            val floor = maxOf(staged.manifest.minimumVersion, before?.floor ?: Version(0, 0, 0))
            val after = State(folder, staged.manifest.version, floor)
            write(after)
            removeStale(after)
            return Accepted(Bundle.open(root.resolve(folder), key), report)
        } finally {
            staging.toFile().deleteRecursively() // what stays goes with the next call
        }
    }

    /**
     * The bundle to use, where `source` comes with the app: the one in force if it has the same signature or is newer
     * (an update had replaced it), otherwise `source`, accepted now. So a start of the app copies nothing but once.
     *
     * A bundle in force that is damaged counts as none. Raises what `accept` raises.
     */
    @Synchronized
    public fun provide(source: BundleSource, runtime: ModelRuntime?): Bundle {
        val current = intact()
        if (current != null && source.signature().contentEquals(current.signature())) {
            removeStale(state())
            return current
        }
        return try {
            accept(source, runtime).bundle
        } catch (refusal: Refusal) {
            if (refusal.kind != RefusalKind.VERSION_OLDER || current == null) throw refusal
            current
        }
    }

    private fun intact(): Bundle? = try {
        installed()
    } catch (refusal: Refusal) {
        null // whatever was damaged, `accept` replaces all of it
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
        syncFolder(root) // the bundle's new name before the file that names it
        replaceDurably(text.encodeToByteArray(), root.resolve("$STAGING$STATE"), root.resolve(STATE))
    }

    private fun removeStale(state: State?) {
        if (!Files.isDirectory(root)) return
        val kept = setOf(state?.folder, STATE)
        Files.newDirectoryStream(root).use { entries ->
            entries.filter { it.fileName.toString() !in kept }.forEach(::remove)
        }
    }

    private companion object {
        const val STATE = "installed.json"
        const val STAGING = ".staging-"
    }
}
