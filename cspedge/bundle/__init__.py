"""Bundles: what an app takes, made, signed and checked by the rules of docs/bundle.md."""
