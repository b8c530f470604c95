"""A run: its config, its working directory, its checkpoints and logs."""
