"""An index over one's own documents: passages, building, roads through it."""
