"""A study of repairs: tampered networks and every repair method, evaluated on the same images."""
