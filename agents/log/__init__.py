"""What happened in a run: events, and the hash-chained log that keeps them."""
