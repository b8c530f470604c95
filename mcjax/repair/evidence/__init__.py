"""Evidence of a backdoor from clean images: inverted triggers, and their success along a path."""
