"""The Audio Interaction Model (arXiv 2606.05121) as a serving engine.

The way in: docs/decisions/0009-what-a-call-remembers.md, then serving.py.
"""
