"""Stages that experiments share: each computes once and keeps a checkpoint."""
