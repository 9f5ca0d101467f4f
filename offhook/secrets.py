"""What `offhook up` makes at its first start and keeps in the data folder, readable by its owner alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from calls.errors import SettingsError

# Easy to read aloud and to type; 4 words of 4 letters from 20 consonant-vowel pairs each: 4 * 2 * log2(75) = 50 bits.
_CONSONANTS = "bdfghjklmnprstv"
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Secrets:
    password: str  # console and API
    secret: str  # signs sessions and stream tokens
    twilio_auth_token: str
    valkey_password: str
    first_start: bool = False  # they were made just now


def load_or_make(data: Path) -> Secrets:
    """The secrets of this data folder. Raises SettingsError when its file is damaged."""
    path = data / "secrets.json"
    try:
        return Secrets(**json.loads(path.read_text()))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{path} is damaged ({error}); delete it to have new secrets made") from error
    made = Secrets(_speakable(), secrets.token_hex(32), secrets.token_hex(16), secrets.token_hex(16))
    kept = asdict(made)
    del kept["first_start"]
    data.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(kept, indent=1))
    return Secrets(**kept, first_start=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def _speakable(words: int = 4) -> str:
    return "-".join(
        "".join(secrets.choice(_CONSONANTS) + secrets.choice(_VOWELS) for _ in range(2)) for _ in range(words)
    )
