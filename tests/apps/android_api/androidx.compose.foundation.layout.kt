package androidx.compose.foundation.layout

import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.Dp

interface ColumnScope

interface RowScope

object Arrangement {
    interface Horizontal
    interface Vertical
    interface HorizontalOrVertical : Horizontal, Vertical

    val SpaceBetween: HorizontalOrVertical = TODO()
    val Start: Horizontal = TODO()
    val Top: Vertical = TODO()

    fun spacedBy(space: Dp): HorizontalOrVertical = TODO()
}

@Composable
fun Column(
    modifier: Modifier = Modifier,
    verticalArrangement: Arrangement.Vertical = Arrangement.Top,
    content: @Composable ColumnScope.() -> Unit,
): Unit = TODO()

@Composable
fun Row(
    modifier: Modifier = Modifier,
    horizontalArrangement: Arrangement.Horizontal = Arrangement.Start,
    content: @Composable RowScope.() -> Unit,
): Unit = TODO()

fun Modifier.fillMaxSize(fraction: Float = 1f): Modifier = TODO()

fun Modifier.fillMaxWidth(fraction: Float = 1f): Modifier = TODO()

fun Modifier.height(height: Dp): Modifier = TODO()

fun Modifier.padding(all: Dp): Modifier = TODO()

fun Modifier.safeDrawingPadding(): Modifier = TODO()
