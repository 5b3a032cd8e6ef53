"""The quantizer: graph preparation, observers, encodings, placement, structural parity."""
