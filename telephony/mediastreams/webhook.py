"""Twilio's voice webhook: is it really Twilio, what should happen to this call, and that as TwiML.

Sans-IO but for the gateway, which is asked by bridge.py. The signature is checked against the URL that Twilio was
given, which behind a proxy is not the URL that we see (https://www.twilio.com/docs/usage/security).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, Dial, Start, Stream, VoiceResponse

from calls.errors import OffhookError
from calls.model import Mode, Role
from telephony.bridge import Offer, Refused

VOICE_PATH = "/twilio/voice"
STREAM_PATH = "/twilio/stream"
KEEP_UP_S = 14_400  # Twilio's own limit of a call: 4 hours
BOTH_PARTIES = (Role.CALLER, Role.HUMAN_AGENT)


class BadWebhook(OffhookError):
    """The request makes no sense (HTTP 400)."""


@dataclass(frozen=True, slots=True)
class VoiceRequest:
    """What Twilio asked. `dial`: whom to put the caller through to while we listen; `next_url`: where else to go on."""

    call_sid: str
    from_: str
    to: str
    mode: Mode
    dial: str = ""
    next_url: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[Role, ...]:
        return (Role.CALLER,) if self.mode is Mode.ANSWER else BOTH_PARTIES

    def offer(self) -> Offer:
        return Offer("mediastreams", self.from_, self.to, mode=self.mode, roles=self.roles, headers=self.headers)


def is_signed(auth_token: str, url: str, form: Mapping[str, str], signature: str) -> bool:
    """Did the holder of the auth token ask this? Never, where no token is set."""
    return bool(auth_token and signature) and bool(RequestValidator(auth_token).validate(url, form, signature))


def public_url(configured: str, seen: str) -> str:
    """The URL that Twilio used: path and query as seen, scheme and host as configured (as seen, if nothing is)."""
    if not configured:
        return seen
    base, request = urlsplit(configured), urlsplit(seen)
    path = base.path.rstrip("/") + request.path
    return urlunsplit((base.scheme, base.netloc, path, request.query, ""))


def stream_url(voice_url: str) -> str:
    """wss://... beside the webhook's own URL, without a query: Twilio takes none."""
    parts = urlsplit(voice_url)
    path = parts.path.removesuffix(VOICE_PATH) + STREAM_PATH
    return urlunsplit(("wss" if parts.scheme == "https" else "ws", parts.netloc, path, "", ""))


def read_request(
    form: Mapping[str, str], query: Mapping[str, str], routes: Mapping[str, str], default_mode: str
) -> VoiceRequest:
    """Raises BadWebhook. The mode is the query's, else the route's of the dialled number, else the default."""
    call_sid, to = form.get("CallSid", ""), form.get("To", "")
    if not call_sid or len(call_sid) > 200:
        raise BadWebhook("no CallSid")
    wanted = query.get("mode") or routes.get(to, default_mode)
    try:
        mode = Mode(wanted)
    except ValueError:
        raise BadWebhook(f"no such mode: {wanted[:40]!a}") from None
    headers = {name: form[name] for name in ("CallSid", "AccountSid", "CallerName") if name in form}
    return VoiceRequest(
        call_sid, form.get("From", "")[:200], to[:200], mode, query.get("dial", ""), query.get("next", ""), headers
    )


def answer_twiml(url: str, token: str, call_id: str) -> str:
    """Two-way: the caller talks to us."""
    response = VoiceResponse()
    connect = Connect()
    connect.append(_stream(url, token, call_id))
    response.append(connect)
    return str(response)


def fork_twiml(request: VoiceRequest, url: str, token: str, call_id: str) -> str:
    """One-way: we hear both parties while the caller is put through, or the flow goes on, or the line is kept up."""
    response = VoiceResponse()
    start = Start()
    start.append(_stream(url, token, call_id, track="both_tracks"))
    response.append(start)
    if not _goes_on(request, response):
        response.pause(length=KEEP_UP_S)
    return str(response)


def refusal_twiml(request: VoiceRequest, refused: Refused) -> str:
    """A fork that cannot be heard must not cost the caller the agent: the call goes on without us."""
    response = VoiceResponse()
    if request.mode is not Mode.ANSWER and _goes_on(request, response):
        return str(response)
    if refused.busy:
        response.reject(reason="busy")
    else:
        response.say("We are sorry, all our lines are taken. Please call again later.")
        response.hangup()
    return str(response)


def _goes_on(request: VoiceRequest, response: VoiceResponse) -> bool:
    """Put the caller through, or hand the call to the flow's next page. False: nobody said where to."""
    if request.dial:
        dial = Dial()
        if request.dial.startswith("sip:"):
            dial.sip(request.dial)
        else:
            dial.number(request.dial)
        response.append(dial)
    elif request.next_url:
        response.redirect(request.next_url)
    return bool(request.dial or request.next_url)


def _stream(url: str, token: str, call_id: str, **attributes: str) -> Stream:
    stream = Stream(url=url, **attributes)
    stream.parameter(name="token", value=token)
    stream.parameter(name="call_id", value=call_id)  # so that it stands in Twilio's own logs
    return stream
