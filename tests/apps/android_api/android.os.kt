package android.os

class Bundle

object Build {
    object VERSION {
        val SDK_INT: Int = TODO()
    }
    object VERSION_CODES {
        const val P = 28
    }
}
