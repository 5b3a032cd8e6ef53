package cspedge.app

import android.content.Context
import com.google.android.play.core.aipacks.AiPackManager
import com.google.android.play.core.aipacks.AiPackManagerFactory
import com.google.android.play.core.aipacks.AiPackState
import com.google.android.play.core.aipacks.AiPackStateUpdateListener
import com.google.android.play.core.aipacks.model.AiPackStatus
import cspedge.core.BundleSource
import cspedge.core.FolderSource
import cspedge.models.BUNDLE_ASSETS
import java.io.IOException
import java.nio.file.Path
import java.nio.file.Paths
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException

private const val PACK = "pack"

/**
 * The models in the AI pack, which Google Play delivers now if it has not yet; waits for it. IOException where Play
 * does not. What comes is a bundle like any other: it is checked before it is used.
 */
fun bundleSource(context: Context, report: (String) -> Unit): BundleSource {
    val manager = AiPackManagerFactory.getInstance(context)
    val place = packPlace(manager) ?: fetchPack(manager, report)
    return FolderSource(place.resolve(BUNDLE_ASSETS))
}

private fun packPlace(manager: AiPackManager): Path? =
    manager.getPackLocation(PACK)?.assetsPath()?.let { Paths.get(it) }

private fun fetchPack(manager: AiPackManager, report: (String) -> Unit): Path {
    val done = CompletableFuture<Unit>()
    val listener = AiPackStateUpdateListener { state -> if (state.name() == PACK) follow(state, done, report) }
    manager.registerListener(listener)
    try {
        manager.fetch(listOf(PACK))
            .addOnSuccessListener { states -> states.packStates()[PACK]?.let { follow(it, done, report) } }
            .addOnFailureListener { error -> done.completeExceptionally(error) }
        done.get()
    } catch (error: ExecutionException) {
        throw IOException("Google Play does not deliver the models: ${error.cause?.message}", error)
    } finally {
        manager.unregisterListener(listener)
    }
    return packPlace(manager) ?: throw IOException("Google Play says that the models are there, and they are not")
}

private fun follow(state: AiPackState, done: CompletableFuture<Unit>, report: (String) -> Unit) {
    when (val status = state.status()) {
        AiPackStatus.COMPLETED -> done.complete(Unit)
        AiPackStatus.FAILED -> done.completeExceptionally(IOException("error ${state.errorCode()}"))
        AiPackStatus.CANCELED -> done.completeExceptionally(IOException("it was cancelled"))
        AiPackStatus.WAITING_FOR_WIFI -> report("Waiting for Wi-Fi to load the models")
        AiPackStatus.REQUIRES_USER_CONFIRMATION ->
            done.completeExceptionally(IOException("Play asks for the user's consent; open the app's page in Play"))
        AiPackStatus.DOWNLOADING, AiPackStatus.TRANSFERRING ->
            report("Loading the models: ${percent(state)} %")
        else -> report("Loading the models (state $status)")
    }
}

private fun percent(state: AiPackState): Long = 100 * state.bytesDownloaded() / maxOf(1, state.totalBytesToDownload())
