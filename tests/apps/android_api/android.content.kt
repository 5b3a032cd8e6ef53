package android.content

import android.content.res.AssetManager
import android.net.Uri
import java.io.File
import java.io.InputStream

abstract class Context {
    abstract val assets: AssetManager
    abstract val noBackupFilesDir: File
    abstract val contentResolver: ContentResolver
    abstract fun getString(id: Int): String
}

abstract class ContentResolver {
    abstract fun openInputStream(uri: Uri): InputStream?
}
