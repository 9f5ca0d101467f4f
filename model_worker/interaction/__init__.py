"""The Audio Interaction Model (arXiv 2606.05121) as a serving engine: docs/decisions/0009 is the way in."""
