"""Where the key comes from: asked for when it is needed, never at import.

The order is the official client's (ecosystem of ``vastai`` 1.9.1): an argument, ``VAST_API_KEY``, then the files
``$XDG_CONFIG_HOME/vastai/vast_api_key`` (``~/.config/vastai/vast_api_key`` where that is unset) and
``~/.vast_api_key``. The text is stripped of white space.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from vastroute import InvalidValue, Secret

VARIABLE = "VAST_API_KEY"


def load_key(key: Secret | str | None = None) -> Secret:
    """The key to use: `key` if there is one, else the first found in the official order.

    Raises `InvalidValue` if there is none, or if it cannot be one. A key file that others may read is used, with a
    warning.
    """
    if key is not None:
        return Secret.of(key.strip() if isinstance(key, str) else key)
    if value := os.environ.get(VARIABLE, "").strip():
        return Secret(value)
    for path in key_files():
        if value := _read(path):
            return Secret(value)
    raise InvalidValue(
        f"there is no key: set {VARIABLE}, write it to {next(key_files(), 'a key file')}, or give it: with key=... in "
        "Python, with --key-file to the command (the endpoint's own key, or the account's, which finds it)"
    )


def key_files() -> Iterator[Path]:
    """The files that are looked into, in order."""
    home = home_folder()
    config = os.environ.get("XDG_CONFIG_HOME") or (home and home / ".config")
    if config:
        yield Path(config) / "vastai" / "vast_api_key"
    if home:
        yield home / ".vast_api_key"


def home_folder() -> Path | None:
    """The user's home, or None: in a container there may be none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _read(path: Path) -> str:
    try:
        value = path.read_text("ascii").strip()
        mode = path.stat().st_mode
    except OSError:
        return ""
    except UnicodeDecodeError:
        raise InvalidValue(f"the key file {path} does not hold a key: it is not plain text") from None
    if value and os.name == "posix" and mode & 0o077:
        warnings.warn(f"others can read the key file {path}: chmod 600 it", stacklevel=3)
    return value
