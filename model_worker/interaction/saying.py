"""A response under way: tokens in, whole characters out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from model_worker.interaction.tokens import Tokens

TORN = "\ufffd"  # what stands for bytes that are no character, or not yet


@dataclass(slots=True)
class Saying:
    """The response to one Chunk of one participant."""

    id: str
    chunk: int
    score: float
    muted: bool = False  # an earlier worker has dealt with it
    unwanted: bool = False  # and it ends with the first Chunk that is new
    announced: bool = False
    stop: bool = False  # policy does not want it
    emotion: str = "normal"
    text: str = ""  # given out so far
    pieces: int = 0  # in so many pieces
    _tokens: list[int] = field(default_factory=list)

    def feed(self, tokens: Iterable[int], table: Tokens, tokenizer: Tokenizer) -> str:
        """Take the next tokens; returns the text that can be given out now, up to the last whole character. A torn one
        that stays at the very end is never given out."""
        for token in tokens:
            if emotion := table.emotion(token):
                self.emotion = emotion
            else:
                self._tokens.append(token)
        text = tokenizer.decode(self._tokens).rstrip(TORN)
        piece = text[len(self.text) :]
        if piece:
            self.text, self.pieces = text, self.pieces + 1
        return piece
