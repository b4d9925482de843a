"""Training of the small heads."""
