package cspedge.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** A JSON value. Objects keep their fields in the order of the text. */
internal sealed interface JsonValue

internal data class JsonObject(val fields: Map<String, JsonValue>) : JsonValue

internal data class JsonArray(val items: List<JsonValue>) : JsonValue

internal data class JsonString(val value: String) : JsonValue

internal data class JsonNumber(val value: Double) : JsonValue {
    val isInteger: Boolean get() = value == Math.rint(value)
}

internal data class JsonBool(val value: Boolean) : JsonValue

internal data object JsonNull : JsonValue

internal class JsonException(message: String) : Exception(message)

/**
 * Parses UTF-8 bytes as JSON (RFC 8259), nothing more: no doubled keys, no byte order mark, no NaN, no number beyond a
 * double, nothing after the value. The platform's parsers keep one of two equal keys in silence.
 */
internal fun parseJson(bytes: ByteArray): JsonValue {
    val text = try {
        Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
    } catch (error: CharacterCodingException) {
        throw JsonException("it is not UTF-8")
    }
    return JsonParser(text).document()
}

private const val MAX_DEPTH = 64
private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

private class JsonParser(private val text: String) {
    private var at = 0

    fun document(): JsonValue {
        val value = value(0)
        space()
        if (at < text.length) fail("something follows the value")
        return value
    }

    private fun value(depth: Int): JsonValue {
        if (depth > MAX_DEPTH) fail("it is nested deeper than $MAX_DEPTH levels")
        space()
        return when (peek()) {
            '{' -> members(depth)
            '[' -> elements(depth)
            '"' -> JsonString(string())
            't' -> word("true", JsonBool(true))
            'f' -> word("false", JsonBool(false))
            'n' -> word("null", JsonNull)
            else -> number()
        }
    }

    private fun members(depth: Int): JsonObject {
        val fields = LinkedHashMap<String, JsonValue>()
        at++
        space()
        if (skip('}')) return JsonObject(fields)
        do {
            space()
            if (peek() != '"') fail("a key is expected")
            val key = string()
            space()
            if (!skip(':')) fail("':' is expected after the key '$key'")
            if (fields.put(key, value(depth + 1)) != null) fail("the key '$key' stands there twice")
            space()
        } while (skip(','))
        if (!skip('}')) fail("',' or '}' is expected")
        return JsonObject(fields)
    }

    private fun elements(depth: Int): JsonArray {
        val items = ArrayList<JsonValue>()
        at++
        space()
        if (skip(']')) return JsonArray(items)
        do {
            items.add(value(depth + 1))
            space()
        } while (skip(','))
        if (!skip(']')) fail("',' or ']' is expected")
        return JsonArray(items)
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (true) {
            val char = peek()
            at++
            when {
                char == '"' -> return out.toString().also { if (hasLoneSurrogate(it)) fail("half a character") }
                char == '\\' -> out.append(escape())
                char < ' ' -> fail("a control character stands in a string")
                else -> out.append(char)
            }
        }
    }

    private fun escape(): Char {
        val char = peek()
        at++
        return when (char) {
            '"', '\\', '/' -> char
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(at, minOf(at + 4, text.length))
                if (digits.length < 4 || digits.any { it !in "0123456789abcdefABCDEF" }) fail("a bad \\u escape")
                at += 4
                digits.toInt(16).toChar()
            }
            else -> fail("a bad escape")
        }
    }

    private fun number(): JsonNumber {
        val match = NUMBER.find(text, at)
        if (match == null || match.range.first != at) fail("a value is expected")
        at = match.range.last + 1
        val value = match.value.toDouble()
        if (value.isInfinite()) fail("the number ${match.value} is too large")
        return JsonNumber(value)
    }

    private fun word(word: String, value: JsonValue): JsonValue {
        if (!text.startsWith(word, at)) fail("a value is expected")
        at += word.length
        return value
    }

    private fun space() {
        while (at < text.length && text[at] in " \t\n\r") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("it ends too early")

    private fun skip(char: Char): Boolean = (at < text.length && text[at] == char).also { if (it) at++ }

    private fun fail(what: String): Nothing = throw JsonException("$what, at character $at")
}

private fun hasLoneSurrogate(text: String): Boolean = !Charsets.UTF_8.newEncoder().canEncode(text)
