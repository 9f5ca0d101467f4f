"""A call told step by step: what the caller, the model and telephony do goes in, what the agent does is looked at."""

from __future__ import annotations

from typing import TypeVar

from agent.conversation import Conversation
from agent.policy import Rules
from calls import events as ev
from calls.audio import CHUNK_S
from calls.model import Answer, Choice, Hint, Mode, Participant, Role, State, Utterance

E = TypeVar("E", bound=ev.Event)

CALL = "c1"
RULES = Rules(company="Kestrel Garage")
PARTICIPANTS = {
    Mode.ANSWER: (Participant("caller", Role.CALLER), Participant("voice_agent", Role.VOICE_AGENT)),
    Mode.ASSIST: (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT)),
    Mode.TRANSCRIBE: (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT)),
}


def offered(mode: Mode = Mode.ANSWER, call_id: str = CALL, at: float = 1_700_000_000.0) -> ev.CallOffered:
    return ev.CallOffered(
        call_id=call_id,
        tenant="default",
        mode=mode,
        bridge="sip",
        from_="alice",
        to="100",
        participants=PARTICIPANTS[mode],
        offered_at=at,
    )


class Story:
    """`stream` is the call's stream as it would lie on the bus: every event, each followed by the agent's commands."""

    def __init__(self, mode: Mode = Mode.ANSWER, rules: Rules = RULES, answered: bool = True) -> None:
        self.mode = mode
        self.conversation = Conversation(offered(mode), rules)
        self.stream: list[ev.Event] = []
        self.news: list[ev.Event] = []  # commands since the last step
        self.now_s = 0.0
        self.chunk = -1
        self._count = 0
        self.happens(offered(mode))
        if answered:
            self.happens(ev.CallStarted(call_id=CALL, started_at=1_700_000_001.0))

    # --- what happens -------------------------------------------------------------------------------------------

    def happens(self, *events: ev.Event) -> list[ev.Event]:
        self.news = []
        for event in events:
            self.stream.append(event)
            commands = self.conversation.apply(event)
            self.news += commands
            for command in commands:
                self.stream.append(command)
                assert self.conversation.apply(command) == []
        return self.news

    def passes(self, seconds: float) -> list[ev.Event]:
        """Silence of `seconds`."""
        until, news = self.now_s + seconds, []
        while self.now_s < until:
            self.chunk += 1
            self.now_s = (self.chunk + 1) * CHUNK_S
            for participant in PARTICIPANTS[self.mode]:
                if participant.role is not Role.VOICE_AGENT:
                    news += self.happens(self.decided(participant.id))
        self.news = news
        return news

    def decided(self, participant_id: str = "caller", choice: Choice = Choice.SILENT) -> ev.Decided:
        return ev.Decided(call_id=CALL, participant_id=participant_id, chunk=self.chunk, choice=choice, score=0.9)

    def partial(self, text: str, participant_id: str = "caller") -> list[ev.Event]:
        end_s = self.now_s
        return self.happens(
            ev.Partial(
                call_id=CALL,
                utterance_id=f"u{self._count}",
                participant_id=participant_id,
                start_s=end_s - 1,
                end_s=end_s,
                text=text,
            )
        )

    def utters(self, text: str, confidence: float = 0.9, participant_id: str = "caller") -> list[ev.Event]:
        """A finished utterance; the model makes nothing of it."""
        self._count += 1
        self.passes(2.0)
        said = Utterance(f"u{self._count}", participant_id, self.now_s - 2, self.now_s, text, (), confidence)
        return self.happens(ev.Uttered(call_id=CALL, utterance=said))

    def asks(
        self,
        heard: str,
        reply: str = "",
        sources: tuple[str, ...] = ("hours-and-place.md#opening-hours",),
        confidence: float = 0.9,
        choice: Choice = Choice.ANSWER,
        title: str = "",
        score: float = 0.8,
    ) -> str:
        """The caller says something and the model responds to it; returns the response's id. `news` are the commands
        of the whole."""
        self._count += 1
        self.passes(2.0)
        response_id = f"r{self._count}"
        opened = ev.ResponseOpened(
            call_id=CALL,
            response_id=response_id,
            choice=choice,
            participant_id="caller",
            chunk=self.chunk,
            score=score,
            trigger_s=self.now_s - 0.4,
            heard=heard,
            confidence=confidence,
            sources=sources,
            title=title,
        )
        said = Utterance(f"u{self._count}", "caller", self.now_s - 2, self.now_s - 0.4, heard, (), confidence)
        words = reply.split(" ")
        deltas = [
            ev.ResponseDelta(call_id=CALL, response_id=response_id, seq=seq, text=word if seq == 0 else f" {word}")
            for seq, word in enumerate(words)
        ]
        closed = ev.ResponseClosed(call_id=CALL, response_id=response_id, text=reply)
        self.happens(opened, *deltas, ev.Uttered(call_id=CALL, utterance=said), closed)
        return response_id

    def plays(self, answer_id: str, heard: str | None = None) -> list[ev.Event]:
        """The answer is played: all of it, or until it is interrupted after `heard`."""
        text = " ".join(clause for clause in self.said(answer_id))
        started = ev.PlayoutStarted(call_id=CALL, answer_id=answer_id, at_s=self.now_s + 0.1)
        self.happens(started)
        self.passes(2.0)
        return self.happens(
            ev.PlayoutEnded(
                call_id=CALL,
                answer_id=answer_id,
                at_s=self.now_s,
                heard_text=text if heard is None else heard,
                interrupted=heard is not None,
            )
        )

    def greets(self) -> Story:
        self.plays("greeting")
        return self

    def ends(self) -> list[ev.Event]:
        return self.happens(
            ev.CallEnded(call_id=CALL, state=State.ENDED, reason="BYE", ended_at=1.0, duration_s=self.now_s)
        )

    # --- what is seen --------------------------------------------------------------------------------------------

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.stream if isinstance(event, kind)]

    def said(self, answer_id: str) -> list[str]:
        return [say.text for say in self.all(ev.Say) if say.answer_id == answer_id and say.text]

    @property
    def last_answer(self) -> str:
        """The id of the newest answer."""
        return self.all(ev.Say)[-1].answer_id

    @property
    def last_said(self) -> str:
        return " ".join(self.said(self.last_answer))

    @property
    def answers(self) -> list[Answer]:
        return [event.answer for event in self.all(ev.Answered)]

    @property
    def hints(self) -> list[Hint]:
        return [event.hint for event in self.all(ev.HintShown)]
