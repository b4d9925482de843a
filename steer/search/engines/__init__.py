"""How spans are written behind nodes of a tree: from pages of keys and values, or from scratch."""
