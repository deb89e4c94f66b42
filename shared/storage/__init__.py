"""Blob Storage: containers, names, records, moves, bytes."""
