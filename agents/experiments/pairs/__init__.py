"""Experiments over pairs of context and terminal: texts that are written towards their terminals, in several ways."""
