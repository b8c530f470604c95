"""What a run is told by: figures, tables, pages."""
