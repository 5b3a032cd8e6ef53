"""Measuring artifacts: accuracy against the fp32 reference, paired statistics, agreement, latency."""
