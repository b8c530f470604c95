"""Backdoors: triggers, poisoned training sets, and the images that measure success."""
