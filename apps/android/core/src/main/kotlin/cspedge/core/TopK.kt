package cspedge.core

import kotlin.math.exp

/** One class of an answer: its index, label and probability. */
public data class Ranked(val index: Int, val label: String, val probability: Double)

/** Softmax in double precision, the largest logit subtracted first. IllegalArgumentException for none or NaN. */
public fun softmax(logits: FloatArray): DoubleArray {
    require(logits.isNotEmpty() && logits.all { it.isFinite() }) { "logits must be finite and at least one" }
    val largest = logits.max().toDouble()
    val powers = DoubleArray(logits.size) { exp(logits[it] - largest) }
    val sum = powers.sum()
    return DoubleArray(logits.size) { powers[it] / sum }
}

/** The `count` likeliest classes, likeliest first; of equal ones the lower index first. Empty labels: the index. */
public fun topK(logits: FloatArray, labels: List<String>, count: Int = 5): List<Ranked> {
    require(labels.isEmpty() || labels.size == logits.size) { "${labels.size} labels for ${logits.size} logits" }
    require(count >= 1) { "$count classes were asked for" }
    val probabilities = softmax(logits)
    // by logit: two of them can round to one probability
    return logits.indices.sortedWith(compareByDescending<Int> { logits[it] }.thenBy { it }).take(count).map {
        Ranked(it, labels.getOrElse(it) { _ -> it.toString() }, probabilities[it])
    }
}
