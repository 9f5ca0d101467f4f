"""Bridges: media and signalling in, media out. Knows nothing of models."""
