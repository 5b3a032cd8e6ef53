package cspedge.core

import kotlin.math.min

/**
 * The part of JSON Schema 2020-12 that bundle.schema.json uses.
 *
 * The schema is the file that `cspedge verify` validates with, so the three languages cannot come to differ about a
 * field. A keyword that is not known here is an error of this program, never ignored.
 */
internal class Schema(private val root: JsonObject) {
    /** Refuses `value`: a field that no schema has goes before anything else that is wrong. */
    fun check(value: JsonValue, what: String) {
        val found = ArrayList<Fault>()
        visit(value, root, "", found)
        val fault = found.firstOrNull { it.kind == RefusalKind.UNKNOWN_FIELD } ?: found.firstOrNull() ?: return
        throw Refusal(fault.kind, "$what: ${fault.path.ifEmpty { "/" }} ${fault.message}")
    }

    private class Fault(
        val kind: RefusalKind,
        val path: String,
        val message: String,
        val ofType: Boolean = false,
    )

    private fun visit(value: JsonValue, schema: JsonObject, path: String, found: MutableList<Fault>) {
        val wrong = { message: String -> found.add(Fault(RefusalKind.MANIFEST_INVALID, path, message)) }
        for ((keyword, rule) in schema.fields) {
            when (keyword) {
                "\$schema", "\$id", "\$defs", "title", "description", "properties" -> Unit
                "\$ref" -> visit(value, resolve(rule.text()), path, found)
                "anyOf" -> anyOf(value, rule.list(), path, found)
                "type" -> if (!hasType(value, rule)) {
                    found.add(Fault(RefusalKind.MANIFEST_INVALID, path, "has a wrong type", ofType = true))
                }
                "const" -> if (value != rule) wrong("has another value than the format allows")
                "enum" -> if (value !in rule.list()) wrong("has another value than the format allows")
                "required" -> requireFields(value, rule.list(), path, found)
                "additionalProperties" -> fields(value, schema, rule, path, found)
                "items" -> (value as? JsonArray)?.items?.forEachIndexed { index, item ->
                    visit(item, rule.obj(), "$path/$index", found)
                }
                "minItems", "maxItems", "minLength", "maxLength", "pattern" -> length(keyword, value, rule, wrong)
                "minimum", "maximum", "exclusiveMinimum" -> range(keyword, value, rule, wrong)
                else -> error("bundle.schema.json uses '$keyword', which is not known here")
            }
        }
    }

    private fun anyOf(value: JsonValue, options: List<JsonValue>, path: String, found: MutableList<Fault>) {
        val tries = options.map { option -> ArrayList<Fault>().also { visit(value, option.obj(), path, it) } }
        if (tries.any { it.isEmpty() }) return
        // of the right type, if one is: its faults say more than "not null"
        found.addAll(tries.firstOrNull { faults -> faults.none { it.ofType && it.path == path } } ?: tries.first())
    }

    private fun requireFields(value: JsonValue, names: List<JsonValue>, path: String, found: MutableList<Fault>) {
        val fields = (value as? JsonObject)?.fields ?: return
        names.map { it.text() }.filter { it !in fields }.forEach {
            found.add(Fault(RefusalKind.MANIFEST_INVALID, path, "lacks the field '$it'"))
        }
    }

    private fun fields(
        value: JsonValue,
        schema: JsonObject,
        others: JsonValue,
        path: String,
        found: MutableList<Fault>,
    ) {
        val known = schema.fields["properties"]?.obj()?.fields ?: emptyMap()
        for ((name, field) in (value as? JsonObject)?.fields ?: return) {
            val rule = known[name] ?: (others as? JsonObject)
            if (rule == null) {
                found.add(Fault(RefusalKind.UNKNOWN_FIELD, path, "has the field '$name', which schema 1 does not know"))
            } else {
                visit(field, rule.obj(), "$path/$name", found)
            }
        }
    }

    private fun length(keyword: String, value: JsonValue, rule: JsonValue, wrong: (String) -> Boolean) {
        if (value is JsonArray) {
            if (keyword == "minItems" && value.items.size < rule.num()) wrong("has too few entries")
            if (keyword == "maxItems" && value.items.size > rule.num()) wrong("has too many entries")
        } else if (value is JsonString) {
            val points = value.value.codePointCount(0, value.value.length)
            if (keyword == "minLength" && points < rule.num()) wrong("is too short")
            if (keyword == "maxLength" && points > rule.num()) wrong("is too long")
            // the whole text: `$` alone would let a last line end pass
            if (keyword == "pattern" && !Regex(rule.text()).matches(value.value)) {
                wrong("is '${value.value.substring(0, min(value.value.length, 80))}', which has not the form needed")
            }
        }
    }

    private fun range(keyword: String, value: JsonValue, rule: JsonValue, wrong: (String) -> Boolean) {
        val number = (value as? JsonNumber)?.value ?: return
        if (keyword == "minimum" && number < rule.num()) wrong("is $number, below ${rule.num()}")
        if (keyword == "maximum" && number > rule.num()) wrong("is $number, above ${rule.num()}")
        if (keyword == "exclusiveMinimum" && number <= rule.num()) wrong("is $number, not above ${rule.num()}")
    }

    private fun hasType(value: JsonValue, rule: JsonValue): Boolean = when (rule) {
        is JsonArray -> rule.items.any { hasType(value, it) }
        else -> when (rule.text()) {
            "object" -> value is JsonObject
            "array" -> value is JsonArray
            "string" -> value is JsonString
            "number" -> value is JsonNumber
            "integer" -> value is JsonNumber && value.isInteger
            "boolean" -> value is JsonBool
            "null" -> value is JsonNull
            else -> error("bundle.schema.json names the type '${rule.text()}'")
        }
    }

    private fun resolve(reference: String): JsonObject {
        val name = reference.removePrefix("#/\$defs/")
        return root.fields.getValue("\$defs").obj().fields.getValue(name).obj()
    }
}

// A schema of another shape is an error of this program: these fail loudly.
internal fun JsonValue.text(): String = (this as JsonString).value

internal fun JsonValue.num(): Double = (this as JsonNumber).value

internal fun JsonValue.list(): List<JsonValue> = (this as JsonArray).items

internal fun JsonValue.obj(): JsonObject = this as JsonObject
