"""Training of the Audio Interaction Model: the modules that serve, in sequences laid out as serving remembers them."""
