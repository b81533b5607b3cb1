"""The forms in which grants have been signed, as a table. Source: wire facts, section 4."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, final

import attrs

from .errors import InvalidValue


def _pairs(fields: Iterable[str | tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if isinstance(fields, str):
        raise InvalidValue(f"fields must be a sequence of names, not one text: ({fields!r},)")
    pairs = tuple((each, each) if isinstance(each, str) else each for each in fields)
    if not pairs or not all(isinstance(pair, tuple) and [type(name) for name in pair] == [str, str] for pair in pairs):
        raise InvalidValue("fields must be names, or pairs of a label in the signed text and a field of the grant")
    if len({label for label, _ in pairs}) != len(pairs):
        raise InvalidValue("fields must not repeat a label: one JSON object cannot hold it twice")
    if any(field == "signature" for _, field in pairs):
        raise InvalidValue("fields must not hold the signature: it cannot be part of what it signs")
    return pairs


@attrs.frozen(kw_only=True)
class SigningForm:
    """One way to make the signed text out of a grant: which fields, under which labels, in which order."""

    name: str
    fields: tuple[tuple[str, str], ...] = attrs.field(converter=_pairs)
    """Pairs of a label in the signed text and the grant's field it stands for, in the order of the text.

    A plain name is short for a field that is its own label. A form with sorted keys lists them sorted.
    """
    since: str | None = None
    """The first day it was in use, as far as known."""
    until: str | None = None
    """The last day, or None: still in use."""
    source: str = ""
    """How it is known."""
    seen: bool = True
    """Whether anything is known to have signed so; False for a form that only stands in documents."""
    covers: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)
    """The grant's fields whose values the signature vouches for."""
    template: str = attrs.field(init=False, eq=False, repr=False)
    """The signed text with ``%s`` in place of each value's JSON."""

    @covers.default
    def _make_covers(self) -> tuple[str, ...]:
        return tuple(field for _, field in self.fields)

    @template.default
    def _make_template(self) -> str:
        labels = (json.dumps(label).replace("%", "%%") for label, _ in self.fields)
        return "{\n" + ",\n".join(f"    {label}: %s" for label in labels) + "\n}"


FORMS: tuple[SigningForm, ...] = (
    SigningForm(name="2026-url", fields=("url",), since="2025-12-18", source="wire facts, section 4, row 9"),
    SigningForm(
        name="2025-10-sorted", fields=("cost", "endpoint", "reqnum", "request_idx", "url"),
        since="2025-10-28", until="2026-01", source="wire facts, section 4, row 7",
    ),
    SigningForm(
        name="2025-10-ordered", fields=("cost", "endpoint", "reqnum", "url", "request_idx"),
        since="2025-10-08", until="2025-10-28", source="wire facts, section 4, row 6",
    ),
    SigningForm(
        name="2024-03-ordered", fields=("cost", "endpoint", "reqnum", "url"),
        since="2023-10-06", until="2025-10-08", source="wire facts, section 4, rows 3 and 3' (not in March 2024)",
    ),
    SigningForm(
        name="2024-03-load", fields=("endpoint", ("load", "cost"), "reqnum", "url"),
        since="2024-03-06", until="2024-03-12", source="wire facts, section 4, row 5",
    ),
    SigningForm(
        name="2024-03-load-first", fields=(("load", "cost"), "endpoint", "reqnum", "url"),
        since="2024-03-06", until="2024-03-06", source="wire facts, section 4, row 4",
    ),
    SigningForm(
        name="2023-10-first", fields=("url", "endpoint", "cost", "reqnum"),
        since="2023-10-06", until="2023-10-06", source="wire facts, section 4, row 2",
    ),
    SigningForm(
        name="documented-triple", fields=("url", "cost", "reqnum"), seen=False,
        source="Vast's page names these fields; their order and the way they are written are inferred",
    ),
)  # fmt: skip  # a row of the table is two lines
"""Every form that can be checked from a grant: the one in use, then those out of use, the latest first.

Two rows of the wire facts are missing because no grant holds what they sign: row 1 signed a text that the client chose
for itself (September 2023), and row 8 signed a Python set, which has no JSON (one hour of December 2025).
"""

_PLAIN = json.JSONEncoder()
_NESTED = json.JSONEncoder(indent=4)


@final
class Written(dict[str, str]):
    """The JSON of each of a grant's fields, written when first asked for: the forms share most of them."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __missing__(self, name: str) -> str:
        value = self._fields[name]
        if isinstance(value, dict | list | tuple):
            text = _NESTED.encode(value).replace("\n", "\n    ")
        else:
            text = _PLAIN.encode(value)
        self[name] = text
        return text


def text_of(form: SigningForm, written: Written) -> bytes | None:
    try:
        return (form.template % tuple([written[field] for field in form.covers])).encode("ascii")
    except (KeyError, TypeError, ValueError, RecursionError):
        return None  # a field is missing, or its value has no JSON: a huge integer, an object that is not JSON's


def signed_text(form: SigningForm, fields: Mapping[str, Any]) -> bytes | None:
    """What `form` signs of a grant's parsed `fields`: exactly ``json.dumps(..., indent=4)``, as the worker makes it.

    None if a field is missing or its value cannot be written as JSON. 100 and 100.0 give different texts.
    """
    return text_of(form, Written(fields))
