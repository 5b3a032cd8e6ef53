package androidx.compose.material3

import androidx.compose.foundation.layout.RowScope
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.Color
import androidx.compose.ui.text.TextStyle

class ColorScheme(val error: Color, val onSurface: Color)

class Typography(val titleMedium: TextStyle)

object MaterialTheme {
    val colorScheme: ColorScheme
        @Composable get() = TODO()
    val typography: Typography
        @Composable get() = TODO()
}

@Composable
fun MaterialTheme(content: @Composable () -> Unit): Unit = TODO()

@Composable
fun Button(onClick: () -> Unit, enabled: Boolean = true, content: @Composable RowScope.() -> Unit): Unit = TODO()

@Composable
fun OutlinedButton(onClick: () -> Unit, enabled: Boolean = true, content: @Composable RowScope.() -> Unit): Unit =
    TODO()

@Composable
fun LinearProgressIndicator(modifier: Modifier = Modifier): Unit = TODO()

@Composable
fun Text(
    text: String,
    modifier: Modifier = Modifier,
    color: Color = Color.Unspecified,
    style: TextStyle = TextStyle.Default,
): Unit = TODO()
