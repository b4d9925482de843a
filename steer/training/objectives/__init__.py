"""Losses, one for each layout."""
