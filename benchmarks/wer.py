"""Word error rate, as in model_worker/evaluation: benchmarks and evaluation count words in the same way."""

from model_worker.evaluation.wer import errors, word_error_rate, words

__all__ = ["errors", "word_error_rate", "words"]
