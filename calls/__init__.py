"""The shared kernel: the words, the events, the bus and the store. Imports none of our other packages."""
