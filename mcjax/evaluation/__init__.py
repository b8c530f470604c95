"""Metrics along a path, and what is concluded from them: barriers, correlations, intervals."""
