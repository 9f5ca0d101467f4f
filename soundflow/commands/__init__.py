"""The commands of `python -m soundflow`, a module each."""
