"""The hints of one call: drafts that the model is still writing, and what was shown."""

from __future__ import annotations

from dataclasses import replace

from agent import policy
from calls.events import ResponseClosed, ResponseOpened
from calls.model import Hint


class Hints:
    def __init__(self, rules: policy.Rules) -> None:
        self._rules = rules
        self._drafts: dict[str, Hint] = {}
        self._shown: dict[str, Hint] = {}

    @property
    def shown(self) -> tuple[Hint, ...]:
        return tuple(self._shown.values())

    def open(self, opened: ResponseOpened, now_s: float) -> str:
        """Keep a place for this hint. Returns why it must not be shown, or ""."""
        # Drafts count as shown: two alike that are written at the same time would otherwise both pass.
        reason = policy.why_not_hint(opened, [*self._shown.values(), *self._drafts.values()], now_s, self._rules)
        if not reason:
            source = policy.source_of(opened)
            own = source == policy.OWN_WORDS
            heading = policy.OWN_TITLE if own else source.rpartition("#")[2].replace("-", " ").capitalize()
            title = opened.title or heading
            self._drafts[opened.response_id] = Hint(
                opened.response_id, now_s, opened.trigger_s, title, "", source, opened.score
            )
        return reason

    def close(self, closed: ResponseClosed, at_s: float) -> Hint | None:
        """The finished hint, to be shown at `at_s`; None if it has no text, says nothing new or was never allowed."""
        draft = self._drafts.pop(closed.response_id, None)
        text = " ".join(closed.text.split())
        if draft is None or closed.cancelled or not text:
            return None
        hint = replace(draft, at_s=round(max(at_s, draft.trigger_s), 3), text=text)
        if policy.says_again(hint, self.shown):
            return None
        self._shown[hint.id] = hint
        return hint

    def judge(self, hint_id: str, verdict: str) -> None:
        if hint := self._shown.get(hint_id):
            self._shown[hint_id] = replace(hint, verdict=verdict)
