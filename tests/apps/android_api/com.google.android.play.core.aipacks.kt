package com.google.android.play.core.aipacks

import android.content.Context

abstract class AiPackLocation {
    abstract fun assetsPath(): String?
}

abstract class AiPackState {
    abstract fun name(): String
    abstract fun status(): Int
    abstract fun errorCode(): Int
    abstract fun bytesDownloaded(): Long
    abstract fun totalBytesToDownload(): Long
}

abstract class AiPackStates {
    abstract fun packStates(): Map<String, AiPackState>
}

fun interface AiPackStateUpdateListener {
    fun onStateUpdate(state: AiPackState)
}

/** com.google.android.gms.tasks.Task, as far as it is used. */
interface Task<T> {
    fun addOnSuccessListener(listener: (T) -> Unit): Task<T>
    fun addOnFailureListener(listener: (Exception) -> Unit): Task<T>
}

interface AiPackManager {
    fun fetch(names: List<String>): Task<AiPackStates>
    fun getPackLocation(name: String): AiPackLocation?
    fun registerListener(listener: AiPackStateUpdateListener)
    fun unregisterListener(listener: AiPackStateUpdateListener)
}

object AiPackManagerFactory {
    fun getInstance(context: Context): AiPackManager = TODO()
}
