"""The three formats of a checkpoint of the Audio Interaction Model; `checkpoint.py` recognises and loads them."""
