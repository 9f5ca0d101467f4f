"""Opening ONNX graphs the one way that suits many calls on few cores."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load an `.onnx` or `.ort` graph for the CPU.

    One thread by default: with many calls at once the parallelism is between calls. Spinning is off, because a thread
    that burns its core while it waits for work takes that core from the media plane.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
