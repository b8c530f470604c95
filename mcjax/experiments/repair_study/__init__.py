"""A study of repairs: tampered networks, every repair method, judged by the same images."""
