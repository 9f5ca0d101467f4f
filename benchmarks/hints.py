"""The hints that an agent would see on the recorded garage call, and what made each of them come up.

    python -m benchmarks.hints [--save TEXTS.json | --texts TEXTS.json]

Both tracks go through the real cascade, Chunk by Chunk and as fast as it will, patiently, so that the result does not
depend on the machine. Printed are each hint's time on the call's clock, its score, the words that met its card, and the
cards that came next. `--save` keeps the running texts of the call, and `--texts` looks for hints in those alone, in
seconds: for work on cards and thresholds.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.knowledge import GARAGE, Knowledge
from agent.policy import Rules
from calls.audio import CHUNK_BYTES, CHUNK_S, Chunk
from calls.events import Event, Partial, ResponseOpened, Uttered
from calls.model import Instruction, Mode, Participant, Role
from model_worker.cascade.hints import WINDOWS, HintFinder, Proposed
from model_worker.cascade.knowledge import Found, Libraries, Library
from model_worker.cascade.load import load_parts
from model_worker.cascade.model import Cascade
from model_worker.cascade.retrieval import Embedder
from model_worker.catalogue import Catalogue
from model_worker.engine import Engine
from model_worker.stream import Past
from offhook.demo import FOLDER
from offhook.phone.wav import load

ROLES = {"human_agent": Role.HUMAN_AGENT, "caller": Role.CALLER}
TRACKS = {"human_agent": "agent.wav", "caller": "caller.wav"}


@dataclass(frozen=True)
class Text:
    """What one party was known to have said at a moment: an utterance so far, as it ended, or as written again."""

    at_s: float
    participant_id: str
    kind: str  # running | ended | again
    text: str


@dataclass(frozen=True)
class Shown:
    at_s: float
    participant_id: str
    title: str
    score: float
    heard: str


def hear(model: Cascade) -> tuple[list[Text], list[Shown]]:
    """The whole call through the cascade: its texts, and its hints."""
    at_s = 0.0
    texts: list[Text] = []
    shown: list[Shown] = []

    def watch(event: Event) -> None:
        match event:
            case Partial(participant_id=who, text=text):
                texts.append(Text(at_s, who, "running", text))
            case Uttered(utterance=said):
                texts.append(Text(at_s, said.participant_id, "again" if said.revision else "ended", said.text))
            case ResponseOpened(participant_id=who, title=title, score=score, heard=heard):
                shown.append(Shown(at_s, who, title, score, heard))
            case _:
                pass

    engine = Engine(model)
    people = tuple(Participant(name, role) for name, role in ROLES.items())
    stream = engine.open("c", Instruction(Mode.ASSIST, "Help.", people, Knowledge(GARAGE).cards()), Past(), watch)
    audio = {name: load(FOLDER / "garage-call" / track) for name, track in TRACKS.items()}
    for index in range(max(map(len, audio.values())) // CHUNK_BYTES):
        at_s = round((index + 1) * CHUNK_S, 1)
        for name, pcm in audio.items():
            part = pcm[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0")
            engine.hear(stream, Chunk("c", name, index, part), 1e12)
        engine.step()
        model.parts.refiner.wait(60)
    closed = threading.Event()
    engine.close(stream, closed.set)
    engine.step()
    closed.wait(60)
    return texts, shown


def look(texts: list[Text], library: Library) -> Iterator[Shown]:
    """The hints that the texts alone give, in the order in which they came."""
    proposed = Proposed()
    finders = {name: HintFinder(proposed, role) for name, role in ROLES.items()}
    for said in texts:
        finder = finders[said.participant_id]
        again = said.kind == "again"
        found = finder.look_again(said.text, library) if again else finder.look(said.text, library)
        if said.kind == "ended":
            finder.finish(said.text)
        if found is not None:
            yield Shown(said.at_s, said.participant_id, found.card.title, found.score, said.text)


def explain(hint: Shown, library: Library) -> tuple[str, list[Found]]:
    """The window of the utterance that is most like the hint's card, and the cards that come next for it."""
    said = hint.heard.split()
    windows = [" ".join(said[-size:]) for size in WINDOWS]
    ranked = {window: library.rank(window) for window in windows}
    words = max(windows, key=lambda w: max((f.score for f in ranked[w] if f.card.title == hint.title), default=0.0))
    return words, [found for found in ranked[words] if found.card.title != hint.title][:2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="keep the texts of the call in this file")
    parser.add_argument("--texts", type=Path, help="look in the texts of this file, and hear nothing")
    options = parser.parse_args()
    catalogue = Catalogue()
    cards = Knowledge(GARAGE).cards()
    library = Libraries(Embedder(catalogue.path("minilm"))).get(cards).result()
    if options.texts:
        shown = list(look([Text(**entry) for entry in json.loads(options.texts.read_text())], library))
    else:
        model = Cascade(load_parts(catalogue), patient=True)
        model.parts.libraries.get(cards).result()
        texts, shown = hear(model)
        model.shut_down()
        if options.save:
            options.save.write_text(json.dumps([asdict(text) for text in texts], indent=0))
    for hint in shown:
        words, rivals = explain(hint, library)
        under = " (under the tenant's least score)" if hint.score < Rules("").hint_min_score else ""
        print(f"{int(hint.at_s) // 60}:{hint.at_s % 60:04.1f}  {hint.score:.2f}  {hint.title}{under}")
        print(f"              {hint.participant_id}: ...{words}")
        print(f"              next: {', '.join(f'{found.card.title} {found.score:.2f}' for found in rivals)}")
    print(f"{len(shown)} hints")


if __name__ == "__main__":
    main()
