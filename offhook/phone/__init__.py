"""Fake phones: they place a real call into a running service, in real time, and say what they heard."""
