"""The default model on a CPU: pretrained parts in a row, behind the protocol of model_worker/stream.py."""
