"""What a store does: opening, writing, reading, searching, maintenance."""
