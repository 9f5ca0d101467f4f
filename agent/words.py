"""How callers say things: the patterns by which policy.py knows a goodbye, a yes, a request for a person.

They are matched against `plain_words`: lower-case words and apostrophes, single spaces, no punctuation. English only;
another language is another module of these names.
"""

from __future__ import annotations

import re


def plain_words(text: str) -> str:
    """The words alone, lower-case, single-spaced: what phrases are compared by."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower().replace("’", "'")))


def _any(*alternatives: str) -> str:
    return f"(?:{'|'.join(alternatives)})"


_BACKCHANNELS = frozenset(
    """
    mhm,mm,mmm,hm,hmm,mm hm,mm hmm,mmhmm,uh huh,uhuh,uh,um,er,erm,ah,oh,aha,ok,okay,yeah,yep,yup,yes,right,sure,i see,
    got it,alright,all right,good,great,cool,fine,of course,exactly,yeah yeah,yes yes,okay okay,ok ok,oh okay,ah okay,
    yeah okay,okay yeah,yeah sure,right right,oh right,right okay,okay right,you
    """.replace("\n", "")
    .replace("    ", "")
    .split(",")
)  # "you" alone is what recognisers hear in noise

_HESITATION = _any("oh", "ah", "um", "er", "well", "okay")
_FINE = _any("fine", "good", "okay", "all right", "all set")
_POLITE = _any(
    "please", "thanks", "thank you", "very much", "that's (?:right|correct|all|it)", f"(?:that's|it's|i'm) {_FINE}",
    "it is", "you did", "i would", "i do", "do", "not", "yes", "yeah", "no", "correct", "right", "perfect", "great",
    "good", "okay", "for now", "that would be great",
)  # fmt: skip

YES = re.compile(
    rf"(?:{_HESITATION} )?"
    + _any(
        "yes", "yeah", "yep", "yup", "sure", "please(?: do)?", "correct", "that's (?:right|correct|it|fine|good)",
        "right", "ok", "okay", "all right", "alright", "of course", "go ahead", "absolutely", "definitely",
        "i (?:would|do)", "perfect", "exactly", "you did",
    )
    + r"\b"
)  # fmt: skip
NO = re.compile(
    rf"(?:{_HESITATION} )?"
    + _any(
        "no", "nope", "nah", "not really", "not quite", "wrong", "incorrect", "that's (?:wrong|not right|not it)",
        f"i'm {_FINE}", "don't bother", "never mind", "nothing", "that's (?:all|everything)", f"it's {_FINE}",
    )
    + r"\b"
)  # fmt: skip
PLAIN_YES, PLAIN_NO = (re.compile(rf"{answer.pattern}(?: {_POLITE})*$") for answer in (YES, NO))

GOODBYE = re.compile(
    r"\b"
    + _any(
        "good ?bye", "bye", "cheerio", "see you(?: later| soon| then)?$", "talk to you later",
        "have a (?:good|nice|great|lovely) (?:day|one|evening|weekend|afternoon)",
        "that's (?:all|it|everything)(?: for (?:now|today))?(?: thank(?:s| you).*)?$", "that(?: will|'ll) be all",
        "nothing else",
    )
    + r"\b"
)  # fmt: skip
_STAFF = _any(
    "person", "human", "someone", "somebody", "anyone", "anybody", "agent", "operator", "manager", "mechanic",
    "representative", "advisor", "colleague", "staff", "receptionist", "reception", "people",
)  # fmt: skip
_REACH = _any(
    "(?:speak|talk)(?:ing)? (?:to|with)", "(?:put|get|pass|give|connect|transfer) me(?: through| on)?(?: to)?"
)  # fmt: skip
PERSON = re.compile(
    _any(
        rf"\b{_REACH}\b[a-z' ]{{0,30}}\b{_STAFF}\b",
        r"\bput me through\b",
        r"\b(?:want|need|like) (?:an? |the )?(?:real |actual |live |human )*"
        r"(?:person|human|agent|operator|manager|representative)\b",
        r"^(?:an? )?(?:operator|agent|representative|human(?: being)?|real person)(?: please)?$",
    )
)
IDENTITY = re.compile(
    _any(
        r"\b(?:are you|am i (?:speaking|talking) (?:to|with)|is this|is that)\b[a-z' ]{0,20}"
        r"\b(?:robot|machine|computer|ai|a i|bot|human|person|recording|automated|real)\b",
        r"\bwho (?:are you|am i (?:talking|speaking))",
    )
)
_THERE = _any("(?:are )?you there", "can you hear me", "(?:is )?(?:anybody|anyone) there")
_GREETING = _any("hello", "hi", "hey", "good (?:morning|afternoon|evening)")
HELLO = re.compile(rf"(?:{_GREETING}(?: there)?|{_THERE})(?: (?:{_GREETING}|{_THERE}|there|please))*$")
THANKS = re.compile(
    r"(?:(?:ok|okay|oh|great|lovely|perfect|right|good|brilliant|all right|alright) )*"
    r"(?:thank you|thanks|cheers|much appreciated)"
    r"(?: (?:so|very) much| a lot| a million| indeed| for (?:that|your help)| then)*$"
)
REPEAT = re.compile(
    r"(?:(?:sorry|pardon|excuse me) )*"
    + _any(
        "pardon(?: me)?", "sorry", "what", "come again", "what did you say", "what was that",
        "(?:(?:can|could|would) you (?:please )?)?(?:say|repeat) (?:that|it)(?: again)?",
        "i didn't (?:catch|hear|get) (?:that|you)",
    )
    + r"(?: please| again)*$"
)  # fmt: skip
_MOMENT = "(?:moment|second|sec|minute)"
WAIT = re.compile(
    r"(?!.*\b(?:what|when|where|how|who|are you|do you|is (?:it|there)|can (?:you|i))\b)"
    r"(?:(?:um|uh|ok|okay|oh|yeah|yes|please) )*"
    + _any(
        "(?:hold|hang) on", "wait", "bear with me", f"(?:just )?(?:one|a|half a) {_MOMENT}", f"give me a {_MOMENT}",
        "let me (?:see|check|look|find|get)",
    )
    + r"\b(?: [a-z']+){0,6}$"
)  # fmt: skip
# Asks for information. "Can I come in on Monday?" is not among them: it asks for the appointment itself.
QUESTION = re.compile(
    r"(?:(?:so|and|um|well|hi|hello|okay|but|yes|no) )*"
    r"(?:what|when|where|who|why|how|which|do|does|did|are|is|have|has|should)\b"
)
BOOKING = re.compile(
    r"\b(?:book|appointment|bring it|drop (?:it|the car|my car)|come in|fit me in|slot|rebook|reschedule)\b"
)


def is_backchannel(text: str) -> bool:
    """Whether `text` is nothing more than a sign of listening: it neither stops an answer nor asks for one."""
    said = plain_words(text)
    return not said or said in _BACKCHANNELS
