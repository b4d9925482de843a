"""The SQLite table that is the truth."""
