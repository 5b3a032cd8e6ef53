package com.google.android.play.core.aipacks.model

object AiPackStatus {
    const val PENDING = 1
    const val DOWNLOADING = 2
    const val TRANSFERRING = 3
    const val COMPLETED = 4
    const val FAILED = 5
    const val CANCELED = 6
    const val WAITING_FOR_WIFI = 7
    const val NOT_INSTALLED = 8
    const val REQUIRES_USER_CONFIRMATION = 9
}
