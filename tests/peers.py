"""Real SIP peers for the tests: SIPp, the Debian baresip, Kamailio. Each skips with the package that is missing.

Every one of them is a process of its own on 127.0.0.1 with its files in a folder of the test's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HOST = "127.0.0.1"
SIPP_MEDIA = Path("/usr/share/sip-tester")
BARESIP_MODULES = Path("/usr/lib/baresip/modules")


def need(program: str, package: str) -> str:
    """The program's path; skips the test if it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"the program '{program}' is not installed: apt-get install {package}")
    return path


def need_raw_sockets() -> None:
    """SIPp plays captured packets through a raw socket."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP).close()
    except PermissionError:
        pytest.skip("SIPp's play_pcap_audio needs a raw socket: run as root, or give sipp cap_net_raw")


def free_port(count: int = 1) -> int:
    """A port that is free for UDP and TCP now, with `count` - 1 more after it."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port % 2 == 0 and all(_is_free(port + i) for i in range(count)):
            return port


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
    return port < 65000


@asynccontextmanager
async def process(*command: str, cwd: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that is ended, by its own id, when the block is left. Its output goes to `log`."""
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), 5)
            except TimeoutError:
                child.kill()
                await child.wait()


# -- SIPp


def scenario(*steps: str) -> str:
    body = "\n".join(textwrap.dedent(step).strip() for step in steps)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="offhook">\n{body}\n</scenario>\n'


SDP = """\
v=0
o=sipp 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP {formats}
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a={direction}
"""


def sipp_send(message: str, body: str = "", retrans: bool = True) -> str:
    """<send> with a message whose lines may be indented."""
    text = textwrap.dedent(message).strip()
    tail = "\nContent-Type: application/sdp\nContent-Length: [len]\n\n" + body if body else "\nContent-Length: 0\n"
    attribute = ' retrans="500"' if retrans else ""
    return f"<send{attribute}><![CDATA[\n\n{text}{tail}\n]]></send>"


def sipp_invite(cseq: int = 1, formats: str = "0 101", direction: str = "sendrecv", headers: str = "") -> str:
    tag = "[peer_tag_param]" if cseq > 1 else ""
    message = f"""
        INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
        Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
        From: "Ann Caller" <sip:ann@[local_ip]:[local_port]>;tag=[pid]T[call_number]
        To: <sip:[service]@[remote_ip]:[remote_port]>{tag}
        Call-ID: [call_id]
        CSeq: {cseq} INVITE
        Contact: <sip:ann@[local_ip]:[local_port];transport=[transport]>
        Max-Forwards: 70{headers}"""
    return sipp_send(message, SDP.format(formats=formats, direction=direction))


def sipp_in_dialog(method: str, cseq: int) -> str:
    message = f"""
        {method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0
        Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
        From: "Ann Caller" <sip:ann@[local_ip]:[local_port]>;tag=[pid]T[call_number]
        To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
        Call-ID: [call_id]
        CSeq: {cseq} {method}
        Max-Forwards: 70"""
    return sipp_send(message, retrans=method != "ACK")


SIPP_ANSWERED = """
    <recv response="100" optional="true"/>
    <recv response="180" optional="true"/>
    <recv response="200" rtd="true"/>
"""
SIPP_BYE_200 = '<recv response="200"/>'


def sipp_call(*during: str, formats: str = "0 101") -> str:
    """A whole call: INVITE to BYE, with `during` between the ACK and the BYE."""
    return scenario(
        sipp_invite(formats=formats), SIPP_ANSWERED, sipp_in_dialog("ACK", 1), *during, sipp_in_dialog("BYE", 9),
        SIPP_BYE_200,
    )  # fmt: skip


@dataclass
class SippResult:
    code: int  # 0: every call went as the scenario says
    output: str


async def sipp(
    folder: Path, text: str, port: int, *, service: str = "answer", calls: int = 1, rate: int = 10, limit: int = 0,
    tcp: bool = False, timeout_s: int = 60, media_ports: int = 4,
) -> SippResult:  # fmt: skip
    """Run a UAC scenario against 127.0.0.1:`port` to its end."""
    program = need("sipp", "sip-tester")
    path = folder / f"scenario-{service.replace('+', '-')}-{port}.xml"
    path.write_text(text)
    local, media = free_port(), free_port(media_ports)
    command = [
        program, f"{HOST}:{port}", "-sf", str(path), "-s", service, "-i", HOST, "-p", str(local), "-mi", HOST,
        "-mp", str(media), "-m", str(calls), "-r", str(rate), "-l", str(limit or calls), "-nostdin",
        "-timeout", f"{timeout_s}s", "-trace_err",
        *(["-t", "t1"] if tcp else []),
    ]  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    errors = "".join(log.read_text(errors="replace") for log in folder.glob("*_errors.log"))
    assert child.returncode is not None
    return SippResult(child.returncode, out.decode(errors="replace")[-3000:] + errors[-3000:])


# -- the Debian baresip


@dataclass
class Baresip:
    """A running softphone; `command` is what one would type into it. `folder` collects what it heard (dump-*.wav)."""

    folder: Path
    sip_port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    events: list[dict[str, object]] = field(default_factory=list)

    async def command(self, name: str, params: str = "") -> None:
        text = json.dumps({"command": name, "params": params})
        self.writer.write(f"{len(text)}:{text},".encode())
        await self.writer.drain()

    async def listen(self) -> None:
        """Collect what it reports (netstrings of JSON)."""
        while True:
            try:
                length = int((await self.reader.readuntil(b":"))[:-1])
                message = json.loads(await self.reader.readexactly(length))
                await self.reader.readexactly(1)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self.events.append(message)

    def happened(self, kind: str) -> bool:
        return any(event.get("type") == kind for event in self.events)

    def heard(self) -> list[Path]:
        """What it decoded, one WAV a call."""
        return sorted(self.folder.glob("dump-*-dec.wav"))


@asynccontextmanager
async def baresip(
    folder: Path, says: Path, *, codecs: str = "", transport: str = "udp", extra: str = ""
) -> AsyncIterator[Baresip]:
    """A softphone that says the WAV `says` on every call."""
    program = need("baresip", "baresip-core")
    folder.mkdir(parents=True, exist_ok=True)
    sip_port, control, media = free_port(), free_port(), free_port(8)
    (folder / "config").write_text(
        f"module_path {BARESIP_MODULES}\n"
        + "".join(f"module {name}.so\n" for name in ("g711", "opus", "aufile", "aubridge", "sndfile"))
        + "".join(f"module_app {name}.so\n" for name in ("account", "menu", "ctrl_tcp"))
        + f"sip_listen {HOST}:{sip_port}\naudio_source aufile,{says}\naudio_player aubridge,nil\n"
        f"audio_alert aubridge,nil\nnet_interface 127.0.0.1\nrtp_ports {media}-{media + 7}\nsnd_path {folder}\n"
        f"ctrl_tcp_listen {HOST}:{control}\nring_aufile none\ncallwaiting_aufile none\nringback_aufile none\n"
        f"notfound_aufile none\nbusy_aufile none\nerror_aufile none\nmessage_aufile none\n{extra}"
    )
    option = f";audio_codecs={codecs}" if codecs else ""
    account = f"<sip:ben@{HOST}:{sip_port};transport={transport}>;regint=0{option}\n"
    (folder / "accounts").write_text(account)
    (folder / "contacts").write_text("")
    async with process(program, "-4", "-f", str(folder), cwd=folder, log=folder / "log") as child:
        reader, writer = await _connect(control, child, folder / "log")
        phone = Baresip(folder, sip_port, reader, writer)
        listening = asyncio.create_task(phone.listen())
        try:
            yield phone
        finally:
            listening.cancel()
            writer.close()


async def _connect(
    port: int, child: asyncio.subprocess.Process, log: Path
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(200):
        try:
            return await asyncio.open_connection(HOST, port)
        except OSError:
            assert child.returncode is None, log.read_text(errors="replace")[-2000:]
            await asyncio.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


# -- Kamailio


KAMAILIO = """
debug=1
log_stderror=yes
children=2
tcp_children=2
auto_aliases=no
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
mpath="{modules}/"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "auth.so"
modparam("registrar", "max_expires", {expires})
modparam("registrar", "min_expires", 1)
modparam("auth", "qop", "auth")
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("$td", "secret", "0")) {{ www_challenge("$td", "1"); exit; }}
        save("location");
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not Here");
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    t_check_trans();
    record_route();
    if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
    t_relay();
}}
"""


@asynccontextmanager
async def kamailio(folder: Path, expires: int = 60) -> AsyncIterator[int]:
    """A registrar and record-routing proxy; gives its port (UDP and TCP). Every user's password is `secret`."""
    program = need("kamailio", "kamailio")
    port = free_port()
    config = folder / "kamailio.cfg"
    modules = next(Path("/usr/lib").glob("*/kamailio/modules"))
    config.write_text(KAMAILIO.format(host=HOST, port=port, expires=expires, modules=modules))
    command = (program, "-f", str(config), "-DD", "-E", "-Y", str(folder), "-m", "32", "-M", "8")
    async with process(*command, cwd=folder, log=folder / "kamailio.log") as child:
        _, writer = await _connect(port, child, folder / "kamailio.log")
        writer.close()
        yield port
