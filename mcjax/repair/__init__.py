"""Repairing tampered networks: the path, the choice of t, and the baselines."""
