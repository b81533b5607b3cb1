"""``vastroute verify``: whether a grant was signed by the engine's key, and what that covers."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from vastroute import FORMS, InvalidValue, PublicKey, Verdict
from vastroute import verify as check

from .exits import Exit
from .failures import verdict_fields
from .options import Json, read_file
from .output import write_json, write_pairs

GrantFile: TypeAlias = Annotated[
    Path | None,
    Parameter(
        allow_leading_hyphen=True,
        help="The grant: the engine's answer, or a line of `vastroute route --json`. Else, or for -, stdin.",
    ),
]
KeyFile: TypeAlias = Annotated[Path, Parameter(help="The engine's public key: PEM, DER or its base64.")]


def verify(grant: GrantFile = None, /, *, public_key: KeyFile, json: Json = False) -> Exit:
    """Say whether a grant's signature is the engine's, in which form, and which fields it covers.

    Exits with 0 if it is, else with 4. What a signature does not cover is only the connection's word.
    """
    key = PublicKey.load(read_file(public_key, "--public-key"))
    fields = _fields(_read(grant))
    verdict = check(fields, key)
    others = [name for name in fields if name not in {*verdict.covers, "signature"}] if verdict.verified else []
    if json:
        write_json({"kind": "verdict", **verdict_fields(verdict), "covers_not": others})
    else:
        write_pairs(_lines(verdict, others, key))
    return Exit.DONE if verdict.verified else Exit.NOT_VERIFIED


def _read(path: Path | None) -> bytes:
    if path is None or str(path) == "-":
        return sys.stdin.buffer.read()
    return read_file(path, "the grant")


def _fields(text: bytes) -> Mapping[str, Any]:
    try:
        value = json_module.loads(text)
    except (ValueError, RecursionError):
        raise InvalidValue(
            "the grant is not JSON: give the engine's answer, or what `vastroute route --json` prints"
        ) from None
    if isinstance(value, dict) and isinstance(value.get("grant"), dict) and "signature" not in value:
        value = value["grant"]
    if not isinstance(value, dict):
        raise InvalidValue(f"the grant must be a JSON object, not {type(value).__name__}")
    return value


def _lines(verdict: Verdict, others: list[str], key: PublicKey) -> list[tuple[str, str]]:
    fingerprint = ("key", f"SHA-256 {key.fingerprint}, {key.bits} bits")
    if not verdict.verified:
        return [("not verified", verdict.detail), ("reason", verdict.reason.value), fingerprint]
    form = next((form for form in FORMS if form.name == verdict.form), None)
    since = f", in use from {form.since} to {form.until or 'now'}" if form is not None and form.since else ""
    return [
        ("verified", f"form {verdict.form}{since}"),
        ("covers", ", ".join(verdict.covers)),
        ("covers not", ", ".join(others) or "nothing else is there"),
        fingerprint,
    ]
