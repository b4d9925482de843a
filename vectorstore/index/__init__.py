"""The index over the table: its configuration, segments, file, back ends."""
