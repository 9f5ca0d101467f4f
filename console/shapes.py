"""The API's answers as types: what /api/v1/openapi.json promises, and what each answer is checked against."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ErrorShape(Shape):
    error: str
    hint: str


class ParticipantShape(Shape):
    id: str
    role: str


class WordShape(Shape):
    text: str
    start_s: float
    end_s: float


class UtteranceShape(Shape):
    id: str
    participant: str
    start_s: float
    end_s: float
    text: str
    confidence: float
    revision: int
    words: list[WordShape]


class DecisionCounts(Shape):
    """`chunks` counts the 0.4 s chunks of every participant; the four choices add up to it."""

    chunks: int
    silent: int
    transcribe: int
    assist: int
    answer: int
    missed_deadlines: int


class HintShape(Shape):
    id: str
    at_s: float
    trigger_s: float
    title: str
    text: str
    source: str
    score: float
    verdict: str


class AnswerShape(Shape):
    id: str
    at_s: float
    text: str
    heard_text: str
    interrupted: bool
    response_ms: int | None
    sources: list[str]


class RecordingShape(Shape):
    path: str
    duration_s: float
    channels: int
    complete: bool


class NoticeShape(Shape):
    kind: str
    text: str
    at_s: float


class CallBase(Shape):
    id: str
    mode: str
    state: str
    bridge: str
    from_: str = Field(alias="from")
    to: str
    started_at: str | None = Field(description="ISO 8601, UTC: second 0 of the call's clock")
    ended_at: str | None
    duration_s: float | None
    summary: str
    disposition: str
    wrap_up: str
    reason: str


class CallShape(CallBase):
    """One call. All times ending in `_s` are seconds on the call's own clock."""

    participants: list[ParticipantShape]
    utterances: list[UtteranceShape]
    decisions: DecisionCounts
    hints: list[HintShape]
    answers: list[AnswerShape]
    recording: RecordingShape | None
    notices: list[NoticeShape]


class CallBrief(CallBase):
    offered_at: str | None
    headline: str = Field(description="what matched the search, the words between « and »")


class CallList(Shape):
    calls: list[dict[str, Any]] = Field(description="CallBrief each; live calls carry more")
    limit: int
    offset: int
    more: bool


class DecisionShape(Shape):
    participant: str
    chunk: int
    at_s: float
    choice: Literal["silent", "transcribe", "assist", "answer"]
    score: float
    late: bool
    stopped: bool = Field(description="before this chunk the model was told to end a response")


class DecisionList(Shape):
    chunk_s: float
    decisions: list[DecisionShape]


class ChannelPeaks(Shape):
    min: list[float]
    max: list[float]


class PeaksShape(Shape):
    duration_s: float
    from_s: float
    to_s: float
    bins: int
    channels: list[ChannelPeaks]


class WorkerShape(Shape):
    """What a worker said of itself within the last three seconds."""

    name: str
    calls: int
    room: int = Field(description="calls it would take now")
    load: float = Field(description="1: it has all it can do")
    step_ms_p99: float = Field(description="milliseconds of all but the slowest hundredth of its steps")
    missed_deadlines: int


class ModelShape(Shape):
    name: str
    calls: int
    room: int
    workers: list[WorkerShape]


class ModelList(Shape):
    models: list[ModelShape]


class VerdictIn(Shape):
    verdict: Literal["accepted", "dismissed"]


class VerdictOut(Shape):
    hint: str
    verdict: str
    delivered: bool = Field(description="False: the bus is away; the verdict is sent when it is back")


class OfferIn(Shape):
    sdp: str = Field(max_length=200_000)
    type: Literal["offer"] = "offer"
    mode: Literal["answer", "assist", "transcribe"] | None = None
    role: Literal["caller", "human_agent"] = "caller"
    reference: str = Field("", max_length=200)
    from_: str = Field("", alias="from", max_length=200, description='Who calls; empty: "browser"')
