"""Repair of tampered networks: path-based repair, the choice of t, and baselines."""
