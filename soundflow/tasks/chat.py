"""Voice chat: the caller asks and is answered; what needs no answer gets none."""

from __future__ import annotations

from calls.model import Mode
from soundflow.compose import Event, Plan
from soundflow.tasks.draw import Draw, SubTask
from soundflow.tasks.words import ASIDES, BACKCHANNELS, DAYS, HOURS, NAMES, THINGS, fill

AGENT = "You answer the phone of Kestrel Garage. Be short and friendly."
GREETINGS = ("Hello?", "Good morning.", "Hi there.", "Hello, is anybody there?", "Good afternoon, is this the garage?")
GREETED = ("Kestrel Garage, good to hear from you. How can I help?", "Hello, Kestrel Garage. What can I do for you?")
CLOSINGS = ("Thanks, bye.", "That was all, goodbye.", "Thank you very much, have a nice day.", "Okay, bye bye.")
CLOSED = ("Thank you for calling. Goodbye.", "You are welcome. Have a good day.")
# (fact in the instruction, ways to ask for it, what to answer)
FACTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "Open {a} to {b}, eight to six.",
        ("When are you open?", "What are your hours?"),
        "We are open {a} to {b}, eight to six.",
    ),
    (
        "An oil change costs {n} euros.",
        ("How much is an oil change?", "What does an oil change cost?"),
        "An oil change is {n} euros.",
    ),
    (
        "A loan car costs {n} euros a day.",
        ("Do you have a loan car?", "What is a loan car a day?"),
        "Yes, a loan car is {n} euros a day.",
    ),
    (
        "Parking is behind the house.",
        ("Where can I park?", "Is there any parking?"),
        "You can park behind the house.",
    ),
    (
        "An inspection takes {n} minutes.",
        ("How long does the inspection take?", "How long is an inspection?"),
        "It takes {n} minutes.",
    ),
    (
        "Cards and cash are taken.",
        ("Can I pay by card?", "How can I pay?"),
        "Yes, we take cards and cash.",
    ),
    (
        "The manager is {name}.",
        ("Who is the manager?", "Who runs the garage?"),
        "Our manager is {name}.",
    ),
    (
        "Tyres are changed on {a}.",
        ("When do you change tyres?", "Which day can I have my tyres changed?"),
        "We change tyres on {a}.",
    ),
)
UNKNOWN = (
    "Do you sell boats?",
    "What is the weather like in Rome?",
    "Can you repair my watch?",
    "Do you have a swimming pool?",
)
NOT_KNOWN = "I am sorry, I cannot say. Shall a colleague call you back?"


def greeting(draw: Draw) -> Plan:
    """Hello and goodbye; small words in between."""
    voices = draw.voices()
    events = [draw.say(draw.pick(GREETINGS), voices).answered(draw.pick(GREETED), "happy")]
    events += [draw.say(draw.pick(BACKCHANNELS), voices) for _ in range(draw.any((0, 1, 2)))]
    if draw.chance(0.7):
        events.append(draw.say(draw.pick(CLOSINGS), voices).answered(draw.pick(CLOSED), "happy"))
    return draw.plan(Mode.ANSWER, AGENT, draw.padded(events))


def facts(draw: Draw) -> Plan:
    """Questions that the given facts answer, some that they do not, and words that are no question to us."""
    voices = draw.voices()
    known = [_filled(draw, FACTS[i]) for i in draw.content.permutation(len(FACTS))[:4]]
    events: list[Event] = []
    for _ in range(draw.any((1, 2, 3))):
        if draw.chance(0.2):
            events.append(draw.say(draw.pick(UNKNOWN), voices).answered(NOT_KNOWN))
            continue
        _, questions, answer = draw.pick(known)
        events.append(draw.say(draw.pick(questions), voices).answered(answer))
        if draw.chance(0.4):
            events.append(draw.say(draw.pick(BACKCHANNELS), voices))
        if draw.chance(0.25):
            events.append(draw.say(draw.pick(ASIDES), voices))
    return draw.plan(Mode.ANSWER, " ".join([AGENT, *(fact for fact, _, _ in known)]), draw.padded(events))


def recall(draw: Draw) -> Plan:
    """Something said early is asked for late: history review."""
    voices = draw.voices()
    name, day, hour, thing = draw.pick(NAMES), draw.pick(DAYS), draw.pick(HOURS), draw.pick(THINGS)
    told: tuple[tuple[str, str, str, str], ...] = (
        (
            f"Hello, this is {name}.",
            f"Hello {name}, how can I help?",
            "What was my name again?",
            f"Your name is {name}.",
        ),
        (
            f"I will come on {day} at {hour} o'clock.",
            f"{day} at {hour}, noted.",
            "When was I going to come?",
            f"On {day} at {hour} o'clock.",
        ),
        (
            f"It is about a {thing}.",
            f"A {thing}, all right.",
            "What did I say it was about?",
            f"You said it was about a {thing}.",
        ),
    )
    chosen = [told[i] for i in draw.content.permutation(3)[: draw.any((1, 2))]]
    events = [draw.say(text, voices).answered(reply) for text, reply, _, _ in chosen]
    events += [draw.background() for _ in range(draw.any((0, 1, 2)))]
    _, _, question, answer = chosen[int(draw.rng.integers(len(chosen)))]
    gap = float(draw.rng.uniform(1.0, 6.0))
    events.append(draw.say(question, voices, gap).answered(answer))
    return draw.plan(Mode.ANSWER, AGENT, draw.padded(events))


def repair(draw: Draw) -> Plan:
    """Not understood: say it again. Corrected: say the right one back."""
    voices = draw.voices()
    _, questions, answer = _filled(draw, draw.pick(FACTS))
    events = [draw.say(draw.pick(questions), voices).answered(answer)]
    again = ("Sorry, what was that?", "Could you say that again?", "I did not get that.", "Pardon?")
    if draw.chance(0.5):
        events.append(draw.say(draw.pick(again), voices).answered(f"I said: {answer}"))
    else:
        days = [DAYS[i] for i in draw.content.permutation(len(DAYS))[:2]]
        events = [draw.say(f"I would like to come on {days[0]}.", voices).answered(f"{days[0]}, all right.")]
        change = draw.pick(("No, I mean {0}.", "Sorry, {0}, not {1}.", "Wait, make that {0}."))
        events.append(draw.say(change.format(*days[::-1]), voices).answered(f"{days[1]} then, not {days[0]}."))
    if draw.chance(0.4):
        events.append(draw.say(draw.pick(BACKCHANNELS), voices))
    return draw.plan(Mode.ANSWER, f"{AGENT} If you were not understood, say it again.", draw.padded(events))


def _filled(draw: Draw, fact: tuple[str, tuple[str, ...], str]) -> tuple[str, tuple[str, ...], str]:
    a, b = (DAYS[int(i)] for i in sorted(draw.content.permutation(len(DAYS))[:2]))
    given = {"a": a, "b": b, "n": str(int(draw.content.integers(2, 19)) * 5), "name": draw.pick(NAMES)}
    told, questions, answer = fact
    return fill(told, draw.content, **given), questions, fill(answer, draw.content, **given)


TASKS = (
    SubTask("voice-chat/greeting", "voice chat", "hello and goodbye are answered, small words are not", greeting),
    SubTask("voice-chat/facts", "voice chat", "a question gets the given fact or an honest no; asides nothing", facts),
    SubTask(
        "voice-chat/recall",
        "voice chat",
        "what was said early is repeated when it is asked for late",
        recall,
        looks_back=True,
    ),
    SubTask(
        "voice-chat/repair",
        "voice chat",
        "said again when not understood, corrected when corrected",
        repair,
        looks_back=True,
    ),
)
