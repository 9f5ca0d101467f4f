"""Perceive, decide, respond for many calls at once. Knows nothing of phones."""
