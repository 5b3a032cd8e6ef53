package cspedge.core

/** The median; of an even number of samples the mean of the middle two. Null where there is none. */
public fun median(samples: Collection<Double>): Double? {
    val sorted = samples.sorted()
    val middle = sorted.size / 2
    return when {
        sorted.isEmpty() -> null
        sorted.size % 2 == 1 -> sorted[middle]
        else -> (sorted[middle - 1] + sorted[middle]) / 2
    }
}
