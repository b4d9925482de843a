"""Text as training and evaluation read it: corpora, dialogue, windows of spans, pairs."""
