package androidx.compose.runtime

import kotlin.reflect.KProperty

@Target(AnnotationTarget.FUNCTION, AnnotationTarget.TYPE, AnnotationTarget.PROPERTY_GETTER)
annotation class Composable

interface MutableState<T> {
    var value: T
}

fun <T> mutableStateOf(value: T): MutableState<T> = TODO()

operator fun <T> MutableState<T>.getValue(thisObj: Any?, property: KProperty<*>): T = TODO()

operator fun <T> MutableState<T>.setValue(thisObj: Any?, property: KProperty<*>, value: T): Unit = TODO()

@Composable
fun <T> remember(calculation: () -> T): T = TODO()

interface DisposableEffectResult

class DisposableEffectScope {
    fun onDispose(effect: () -> Unit): DisposableEffectResult = TODO()
}

@Composable
fun DisposableEffect(key: Any?, effect: DisposableEffectScope.() -> DisposableEffectResult): Unit = TODO()

abstract class CompositionLocal<T> {
    val current: T
        @Composable get() = TODO()
}
