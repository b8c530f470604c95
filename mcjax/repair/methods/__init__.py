"""Repairs to compare the path with, one file per method."""
