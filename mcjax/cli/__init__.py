"""The commands: each reads flags, calls the library and prints."""
