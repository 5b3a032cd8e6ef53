package androidx.compose.ui.viewinterop

import android.content.Context
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier

open class View

@Composable
fun <T : View> AndroidView(factory: (Context) -> T, modifier: Modifier = Modifier): Unit = TODO()
