package cspedge.models

import android.content.Context
import android.content.res.AssetManager
import cspedge.core.AssetSource
import cspedge.core.AssetTree
import cspedge.core.Bundle
import cspedge.core.BundleSource
import cspedge.core.BundleStore
import cspedge.core.Classifier
import cspedge.core.ModelRuntime
import cspedge.core.Runtimes
import cspedge.core.VerifyingKey
import java.io.InputStream

/** Where `cspedge bundle` puts the bundle among the assets, and the publisher's public key among the app's. */
public const val BUNDLE_ASSETS: String = "cspedge/bundle"
private const val KEY_ASSET = "cspedge/public.pem"

/** The bundle among the app's own assets. */
public fun assetSource(context: Context): BundleSource = AssetSource(AndroidAssets(context.assets), BUNDLE_ASSETS)

/**
 * The app's place for the bundle `name` and its updates, with the app's key: private to the app, and in no backup,
 * since a restored one would be checked against another installation.
 */
public fun bundleStore(context: Context, name: String): BundleStore {
    val key = context.assets.open(KEY_ASSET).use { it.readBytes() }.decodeToString()
    return BundleStore(context.noBackupFilesDir.toPath().resolve("cspedge/$name"), name, VerifyingKey.fromPem(key))
}

/**
 * The bundle `name`, ready: checked, copied out of `source` where the one in force is not it already. Not for the main
 * thread. Refusal; FileNotFoundException where the app has no key.
 */
public fun openBundle(context: Context, name: String, source: BundleSource = assetSource(context)): Bundle =
    bundleStore(context, name).provide(source, modelRuntime())

/** `openBundle` with its first artifact that runs here. Not for the main thread. */
public fun openClassifier(context: Context, name: String, source: BundleSource = assetSource(context)): Classifier =
    Classifier.open(openBundle(context, name, source), modelRuntime())

/** What runs here: ExecuTorch, then ONNX Runtime. */
public fun modelRuntime(): ModelRuntime = Runtimes(listOf(ExecuTorchRuntime(), OnnxRuntime()))

private class AndroidAssets(private val assets: AssetManager) : AssetTree {
    override fun list(path: String): List<String> = assets.list(path).orEmpty().toList()

    override fun open(path: String): InputStream = assets.open(path, AssetManager.ACCESS_STREAMING)
}
