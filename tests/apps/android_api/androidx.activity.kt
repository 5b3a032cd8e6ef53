package androidx.activity

import androidx.lifecycle.ViewModel

open class ComponentActivity : android.content.Context() {
    protected open fun onCreate(savedInstanceState: android.os.Bundle?): Unit = TODO()
    override val assets: android.content.res.AssetManager get() = TODO()
    override val noBackupFilesDir: java.io.File get() = TODO()
    override val contentResolver: android.content.ContentResolver get() = TODO()
    override fun getString(id: Int): String = TODO()
}

inline fun <reified T : ViewModel> ComponentActivity.viewModels(): Lazy<T> = TODO()
