"""One call as the agent lives it: events in, commands out.

A Conversation is a fold over the stream `call:ID`. It has no clock, no connection and no chance in it: time is what
the events say (each Decided brings 0.4 s), so reading the stream again from its start always gives the same state
and the same commands. The commands are on that stream too, and whatever it does not hold after a restart is `owed`.

    RINGING -> ANSWERING, ASSISTING or TRANSCRIBING -> ENDED or FAILED; or REFUSED  (calls/model.py)

    ANSWERING     a turn of the caller -> a Move (policy.py) -> what is said, clause by clause (answering.py)
    ASSISTING     a response of the model -> a hint, if the rules allow it (hints.py)
    TRANSCRIBING  nothing is said and nothing shown
"""

from __future__ import annotations

from collections import Counter

from agent import policy
from agent.answering import Answering, Saying
from agent.effects import MESSAGE, Ledger
from agent.hints import Hints
from agent.phrases import READ_BACK, RIGHT, Phrase, phrase
from agent.policy import Asked, Line, Move, Rules, Turn
from agent.readback import Details
from agent.words import is_backchannel
from calls import events as ev
from calls.audio import CHUNK_S
from calls.clauses import Clauses, clauses
from calls.model import Choice, Happening, Role, State, Utterance, next_state

SAME_TURN_S = 0.5  # two reports of the caller's words that end so close together are about the same turn
KEYS_DONE_S = 3.0  # so long after the last key, a number typed without # is taken as finished
LIVE = (State.ANSWERING, State.ASSISTING, State.TRANSCRIBING)
OVER = (State.ENDED, State.REFUSED, State.FAILED)


class Conversation:
    """`apply` each event of the call in the order of its stream; post the commands it returns."""

    def __init__(self, offered: ev.CallOffered, rules: Rules) -> None:
        self.call_id = offered.call_id
        self.mode = offered.mode
        self.rules = rules
        self.state = State.RINGING
        self.now_s = 0.0
        self.hints = Hints(rules)
        self.answering = Answering(offered.call_id, rules.answer_words, self._issue)
        self._ledger = Ledger()
        self._commands: list[ev.Event] = []
        self._responses: set[str] = set()  # every response that was opened
        self._times: Counter[str] = Counter()  # how often each kind of phrase was said
        # What the talk is about
        self._asked = Asked.NOTHING
        self._details = Details()
        self._about = ""
        self._keys = ""
        self._keys_s = 0.0
        self._repairs = 0
        self._dealt_with_s = -1.0  # the caller's words up to here have had their reaction
        # Silence, and the end
        self._quiet_since_s = 0.0
        self._prompted = False
        self._patient = False
        self._has_words = True  # the model tells what the caller says
        self._held = False
        self._said_goodbye = False
        self._hung_up = False

    @property
    def owed(self) -> list[ev.Event]:
        """Commands that the stream does not hold: after a restart, post these."""
        return self._ledger.owed

    def apply(self, event: ev.Event, posted_s: float = 0.0) -> list[ev.Event]:
        """Take the next event; returns the commands it leads to. `posted_s` is when it came to lie on the bus, on
        the call's clock, where that is known: the moment at which a hint is shown."""
        if self._ledger.seen(event):
            return []
        self._commands = []
        match event:
            case ev.CallStarted() if self.state is State.RINGING:
                self.state = next_state(self.state, Happening.ANSWERED, self.mode)
                if self.state is State.ANSWERING:
                    self._say(Line(Phrase.GREETING), prompted_s=None)
            case ev.CallEnded() if self.state not in OVER:
                end = Happening.LOST if event.state is State.FAILED else Happening.HUNG_UP
                self.state = next_state(self.state, end, self.mode)
            case ev.CallAccepted():
                self._has_words = event.transcribes
            case ev.PlayoutStarted():
                self.answering.started(event)
            case ev.PlayoutEnded():
                self._playout_ended(event)
            case _ if self.state in LIVE:
                self._talk(event, posted_s)
        return self._commands

    def _talk(self, event: ev.Event, posted_s: float) -> None:
        match event:
            case ev.Decided():
                self._pass_time((event.chunk + 1) * CHUNK_S)
            case ev.Partial(participant_id=Role.CALLER):
                self._overhear(event.text, event.end_s, event.confidence)
            case ev.Uttered(utterance=Utterance(participant_id=Role.CALLER, revision=0) as said):
                self._overhear(said.text, said.end_s, said.confidence)
                self._listen(Turn(said.text, said.end_s, said.confidence), response=None)
            case ev.ResponseOpened() if event.response_id not in self._responses:
                self._responses.add(event.response_id)
                self._respond(event)
            case ev.ResponseDelta():
                self.answering.write(event)
            case ev.ResponseClosed():
                self._finish(event, posted_s)
            case ev.BargeIn() | ev.PlayoutResumed():
                self.answering.pause(event)
            case ev.Dtmf(participant_id=Role.CALLER):
                self._press(event)
            case ev.HoldChanged(participant_id=Role.CALLER):
                self._held = event.held
                self._quiet_since_s = max(self._quiet_since_s, event.at_s)
            case ev.HintJudged():
                self.hints.judge(event.hint_id, event.verdict)

    def _issue(self, command: ev.Event) -> None:
        if self._ledger.issue(command):
            self._commands.append(command)

    # --- the caller speaks -----------------------------------------------------------------------------------------

    def _overhear(self, text: str, end_s: float, confidence: float) -> None:
        """Words of the caller, perhaps over an answer: anything but "mhm" stops it. Words that the recogniser is not
        sure of are as likely a hum or a cough: those stop it only by lasting, which telephony judges."""
        if not text.strip():
            return
        self._quiet_since_s = max(self._quiet_since_s, end_s)
        self._prompted = False
        saying = self.answering.current
        if saying is None or saying.paused_s is None or end_s < saying.paused_s:
            return
        if confidence >= self.rules.interrupt_above and not is_backchannel(text):
            self.answering.stop("interrupted")

    def _listen(self, turn: Turn, response: ev.ResponseOpened | None) -> None:
        """A turn of the caller, known from the transcript alone or together with the model's response to it."""
        move = policy.move(turn, self._asked, self.rules)
        reason = ""
        if self.state is not State.ANSWERING or self._hung_up:
            reason = "the agent does not answer now"
        elif turn.end_s <= self._dealt_with_s + SAME_TURN_S and not turn.wordless:
            reason = "dealt with already"
        elif move is Move.IGNORE:
            reason = "nothing to answer"
        elif self.answering.is_heard and turn.confidence < self.rules.interrupt_above:
            reason = "a sound over the answer, which goes on"
        elif response is None and move not in policy.SCRIPTED:
            reason = "the model's turn to decide"
        elif move is not Move.ANSWER:
            reason = f"policy: {move}"
            self._dealt_with_s = turn.end_s
            self._make(move, turn)
        elif response is not None:
            self._dealt_with_s = turn.end_s
            self._repairs, self._asked, self._patient = 0, Asked.NOTHING, False
            saying = Saying(response.response_id, self.now_s, turn.end_s, turn.sources, response.emotion)
            saying.writer = Clauses()
            self.answering.begin(saying)
        self._refuse(response, reason)

    def _make(self, move: Move, turn: Turn) -> None:
        """Make a move that has words of its own."""
        self._repairs = self._repairs + 1 if move is Move.REPAIR else 0
        self._patient = move is Move.TAKE_TIME
        line = policy.SCRIPT.get(move)
        match move:
            case Move.READ_BACK:
                self._read_back(turn)
            case Move.REPEAT:
                self._speak("repeat", clauses(self.answering.last_text), turn.end_s, self._asked)
            case Move.GOODBYE if self._said_goodbye:
                self._hang_up("goodbye")
            case Move.REPAIR if self._repairs > self.rules.repairs_in_a_row:
                self._repairs = 0
                line = Line(Phrase.TROUBLE, Asked.MESSAGE)
            case Move.REPAIR | Move.TAKE_TIME if line:
                line = Line(line.phrase, asks=self._asked)  # what was asked before still stands
            case Move.UNKNOWN | Move.PERSON:
                self._about = turn.heard
            case Move.CONFIRMED if self._details.number:
                self._leave_message(turn.end_s)
            case Move.CONFIRMED:
                line = Line(Phrase.ASK_CALLBACK, Asked.NUMBER)
            case Move.NOT_RIGHT:
                self._details = Details()
                line = Line(Phrase.ASK_KEYS, Asked.NUMBER) if self._times[Phrase.ASK_AGAIN] else line
        if line and not self._hung_up:
            self._say(line, turn.end_s)

    def _read_back(self, turn: Turn) -> None:
        self._details = self._details.with_(policy.given(turn.heard, self._asked))
        self._about = self._about or turn.heard
        aloud = clauses(self._details.read_aloud())
        self._speak("read-back", [READ_BACK, *aloud, RIGHT], turn.end_s, Asked.RIGHT)

    def _leave_message(self, at_s: float) -> None:
        """Leave the caller's message where the team finds it: with the call."""
        text = f"Message from the caller: {self._details.written()}. About: {self._about}"
        self._issue(ev.Notice(call_id=self.call_id, kind=MESSAGE, text=text, at_s=at_s))
        self._details, self._about = Details(), ""

    def _press(self, key: ev.Dtmf) -> None:
        """Keys type a number where one was asked for; elsewhere 0 asks for a person."""
        self._quiet_since_s = max(self._quiet_since_s, key.at_s)
        if self._asked in (Asked.NUMBER, Asked.RIGHT):
            self._keys_s = key.at_s
            self._keys += key.digit if key.digit.isdigit() else ""
            if key.digit == "#":
                self._take_keys()
        elif key.digit == "0":
            self._listen(Turn("operator", key.at_s), response=None)

    def _take_keys(self) -> None:
        keys, self._keys = self._keys, ""
        if keys:
            self._asked = Asked.NUMBER
            self._dealt_with_s = -1.0  # keys are no second report of the words before them
            self._listen(Turn(keys, self._keys_s), response=None)

    # --- the model responds ----------------------------------------------------------------------------------------

    def _respond(self, opened: ev.ResponseOpened) -> None:
        if opened.choice is Choice.ANSWER and opened.participant_id == Role.CALLER:
            turn = Turn(opened.heard, opened.trigger_s, opened.confidence, opened.sources, wordless=not opened.heard)
            self._listen(turn, opened)
        elif opened.choice is Choice.ASSIST and self.state is State.ASSISTING:
            self._refuse(opened, self.hints.open(opened, self.now_s))
        else:
            self._refuse(opened, f"{opened.choice} is not for {self.state}")

    def _refuse(self, response: ev.ResponseOpened | None, reason: str) -> None:
        if response is not None and reason:
            self._issue(ev.CancelResponse(call_id=self.call_id, response_id=response.response_id, reason=reason))

    def _finish(self, closed: ev.ResponseClosed, posted_s: float) -> None:
        if hint := self.hints.close(closed, max(self.now_s, posted_s)):
            self._issue(ev.HintShown(call_id=self.call_id, hint=hint))
        if wordless := self.answering.finish(closed):
            self._say(Line(Phrase.STUMBLE), wordless.prompted_s)

    # --- speaking --------------------------------------------------------------------------------------------------

    def _say(self, line: Line, prompted_s: float | None) -> None:
        """Say a fixed phrase, each time in other words if there are any."""
        text = phrase(line.phrase, self.rules.company, self._times[line.phrase])
        self._said_goodbye = self._said_goodbye or line.ends_call
        self._speak(line.phrase, clauses(text), prompted_s, line.asks, line.ends_call)

    def _speak(
        self, kind: str, parts: list[str], prompted_s: float | None, asks: Asked, ends_call: bool = False
    ) -> None:
        self._times[kind] += 1
        self._asked = asks
        name = kind if kind == Phrase.GREETING else f"{kind}-{self._times[kind]}"
        self.answering.say(Saying(name, self.now_s, prompted_s, ends_call=ends_call), parts)

    def _playout_ended(self, event: ev.PlayoutEnded) -> None:
        saying = self.answering.ended(event)
        if saying is None:
            return
        self._quiet_since_s = max(self._quiet_since_s, event.at_s)
        if saying.ends_call and not event.interrupted and self.state in LIVE:
            self._hang_up("the caller is silent" if saying.prompted_s is None else "goodbye")

    # --- silence, and the end --------------------------------------------------------------------------------------

    def _pass_time(self, now_s: float) -> None:
        """The call's clock moves on."""
        self.now_s = max(self.now_s, now_s)
        if self.state is not State.ANSWERING or self._held or self._hung_up:
            return
        if self._keys and self.now_s - self._keys_s >= KEYS_DONE_S:
            self._take_keys()
        if saying := self.answering.current:
            if saying.started_s is None and self.now_s - saying.since_s >= self.rules.unheard_after_s:
                self._give_up(saying)
        else:
            self._mind_silence(self.now_s - self._quiet_since_s)

    def _mind_silence(self, quiet_s: float) -> None:
        """Silence after an answer is met with one prompt, then with a goodbye: never with dead air."""
        unsure = self._patient or not self._has_words  # where no words come, the caller may be in the middle of many
        patience_s = self.rules.patience_s if unsure else self.rules.prompt_after_s
        if self._said_goodbye and quiet_s >= patience_s:
            self._hang_up("goodbye")
        elif self._prompted and quiet_s >= self.rules.dead_air_after_s:
            self._say(Line(Phrase.DEAD_AIR, ends_call=True), None)
        elif not self._prompted and quiet_s >= patience_s:
            self._prompted = True
            self._say(Line(Phrase.PROMPT, self._asked), None)

    def _give_up(self, saying: Saying) -> None:
        """An answer that never reached the wire must not keep the call waiting."""
        self.answering.stop("not heard in time")
        self._quiet_since_s = self.now_s
        if saying.ends_call:
            self._hang_up("nothing can be said")
        elif not saying.said:
            self._say(Line(Phrase.STUMBLE), saying.prompted_s)

    def _hang_up(self, reason: str) -> None:
        self._hung_up = True
        self._issue(ev.HangUp(call_id=self.call_id, reason=reason))
