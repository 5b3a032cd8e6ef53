package org.junit

annotation class Test

object Assert {
    fun assertEquals(message: String, expected: Any?, actual: Any?): Unit = TODO()
    fun assertTrue(condition: Boolean): Unit = TODO()
}
