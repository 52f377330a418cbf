"""Where settings come from beside the environment, and the sentences by which wrong ones are refused."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import PydanticBaseSettingsSource, SettingsError

from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER

# MARKETFLOW_* names that are no field here: secrets, the simulator's own knobs, the wrapper's mark on its processes
_OTHER_NAMES = ("MARKETFLOW_SECRET_", "MARKETFLOW_SIMULATOR_", "MARKETFLOW_SERVICE_RUN")
# names of settings whose value is nobody's to read in a log
_HIDDEN = ("key", "secret", "password", "token", "alert_url", "options")
_ANEW = "put it aside, then `make down` and `make up`, which writes it anew"


class StackFile(PydanticBaseSettingsSource):
    """What `make up` wrote down about this machine: `<home>/stack.json`, keys are field names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused by pydantic-settings when __call__ answers for all fields at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All recorded values; an absent file means nothing was recorded yet."""
        home = self.current_state.get("home") or PROJECT_FOLDER / ".marketflow"
        path = Path(str(home)) / "stack.json"
        try:
            recorded = json.loads(path.read_text()) if path.exists() else {}
        except OSError as error:
            raise ConfigurationError(f"stack.json of MARKETFLOW_HOME cannot be read: {error}") from None
        except ValueError as error:  # no text, or no JSON
            raise ConfigurationError(f"stack.json of MARKETFLOW_HOME is spoilt: {error}; {_ANEW}") from None
        if not isinstance(recorded, dict):
            raise ConfigurationError(f"stack.json of MARKETFLOW_HOME is spoilt: no JSON object; {_ANEW}")
        return recorded


def all_known(what: str, value: tuple[str, ...], known: Collection[str]) -> tuple[str, ...]:
    """The value, each of which is known, and at least one; a ValueError that lists what is known otherwise."""
    unknown = [each for each in value if each not in known]
    if unknown or not value:
        wrong = f"unknown {what} {', '.join(unknown)}" if unknown else f"at least one {what} is needed"
        raise ValueError(f"{wrong}; known: {', '.join(sorted(known))}")
    return value


def sentence(error: ValidationError, prefix: str) -> str:
    """The first thing that is wrong, by the variable's name; what may be a secret is not shown."""
    first = error.errors()[0]
    said, name = first["msg"].removeprefix("Value error, "), ".".join(str(part) for part in first["loc"])
    if not name:  # of several settings together: the sentence names them, and the input would be all there are
        return said
    given = first.get("input")
    shown = ",".join(map(str, given)) if isinstance(given, list | tuple) else given
    got = "" if any(word in name for word in _HIDDEN) else f" (got {shown!r})"
    return f"{prefix}{name.upper()}: {said}{got}"


def unread(error: SettingsError, prefix: str) -> str:
    """That a variable's value is no JSON, by its name."""
    # pydantic names the field and the place: `error parsing value for field "ccxt_options" from source "…"`
    field = re.search(r'field "(\w+)"', str(error))
    name = f"{prefix}{field[1].upper()}" if field else str(error)
    return f"{name}: JSON is expected"


def dotenv_file() -> dict[str, str | None]:
    """What `.env` of the project's folder says; nothing where there is none.

    Raises:
        ConfigurationError: it is there and cannot be read.
    """
    file = PROJECT_FOLDER / ".env"
    try:
        return dict(dotenv_values(file)) if file.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f".env cannot be read: {error}") from None


def refuse_unknown_names(fields: Collection[str]) -> None:
    """A misspelt name would leave the default in force without a word.

    Raises:
        ConfigurationError: a MARKETFLOW_* variable is none of these fields and of no other use.
    """
    known = {f"MARKETFLOW_{name.upper()}" for name in fields}
    for where, names in (("the environment", os.environ), (".env", dotenv_file())):
        for name in names:
            if name.startswith("MARKETFLOW_") and name not in known and not name.startswith(_OTHER_NAMES):
                close = difflib.get_close_matches(name.removeprefix("MARKETFLOW_").lower(), list(fields), n=1)
                hint = f"did you mean MARKETFLOW_{close[0].upper()}?" if close else ".env.example lists them"
                raise ConfigurationError(f"{name} of {where} is no setting of marketflow; {hint}")
