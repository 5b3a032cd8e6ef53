package cspedge.app

/** What Gradle makes of res/. */
object R {
    object string {
        const val bundle_name = 1
    }
}
