"""Is it the model that fails, or the call? Asked with a call of nothing but silence."""

from __future__ import annotations

import logging

from calls.audio import CHUNK_BYTES, Chunk
from calls.events import Decided, Event
from calls.model import Instruction, Mode, Participant, Role
from model_worker.errors import NoRoom
from model_worker.stream import Model, Past

log = logging.getLogger(__name__)

CALL = "probe"
SILENCE = Chunk(CALL, Role.CALLER.value, 0, bytes(CHUNK_BYTES))
INSTRUCTION = Instruction(Mode.TRANSCRIBE, "", (Participant(Role.CALLER.value, Role.CALLER),))


def hears_silence(model: Model) -> bool | None:
    """Whether the model still opens a call, decides a silent Chunk of it and closes it; None: it has no room for
    one more call, so that is not known. In the thread that steps it."""
    said: list[Event] = []
    try:
        stream = model.open(CALL, INSTRUCTION, said.append, Past())
        try:
            model.step([(stream, SILENCE)])
        finally:
            model.close(stream)
    except NoRoom as error:
        log.warning("the model cannot be asked to hear silence: %s", error)
        return None
    except Exception:
        # The boundary between the model and the calls: what it raises here is the answer.
        log.exception("the model fails at a call of silence too")
        return False
    return any(isinstance(event, Decided) for event in said)
