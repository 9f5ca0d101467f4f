"""SoundFlow: from clips to streams with labels, from streams to a trained Audio Interaction Model."""
