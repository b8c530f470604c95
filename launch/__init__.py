"""Batch launches: sweeps over existing engines, and TPU VM recipes."""
