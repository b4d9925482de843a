"""Scenario files: their schema, loading, and the packaged ones."""
