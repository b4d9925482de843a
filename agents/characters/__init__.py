"""What a character wants, remembers, and plans."""
