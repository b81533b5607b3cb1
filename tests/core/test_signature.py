"""Signing forms, keys, verdicts, and the memory of a `Verifier`."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from vastroute import (
    FORMS,
    Grant,
    InvalidValue,
    PublicKey,
    Reason,
    SignatureMode,
    SigningForm,
    Verdict,
    Verifier,
    signed_text,
    verify,
)
from vastroute.urls import split_url

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signing.json").read_text())
VECTOR_KEY = PublicKey.load(VECTORS["pubkey"])
URL_FORM = FORMS[0]
SAMPLE: dict[str, Any] = {
    "cost": 100.0,
    "endpoint": "demo",
    "reqnum": 12,
    "request_idx": 7,
    "url": "https://203.0.113.7:40123",
    "__request_id": "5f1c",
}

# Every key is made once: making one costs more than all checks with it.
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=1024)
CUBE_PRIVATE = rsa.generate_private_key(public_exponent=3, key_size=2048)
KEY = PublicKey.from_cryptography(PRIVATE.public_key())
OTHER_KEY = PublicKey.from_cryptography(OTHER_PRIVATE.public_key())
SMALL_KEY = PublicKey.from_cryptography(SMALL_PRIVATE.public_key(), min_bits=1024)
SPKI_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SPKI_DER = PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PKCS1_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
PKCS1_DER = PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PRIVATE_DER = PRIVATE.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
CERTIFICATE_PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def sign(text: bytes, private: rsa.RSAPrivateKey = PRIVATE) -> str:
    return base64.b64encode(private.sign(text, PKCS1v15(), SHA256())).decode()


def signed(
    fields: Mapping[str, Any], form: SigningForm = URL_FORM, private: rsa.RSAPrivateKey = PRIVATE
) -> dict[str, Any]:
    text = signed_text(form, fields)
    assert text is not None
    return {**fields, "signature": sign(text, private)}


def as_grant(fields: Mapping[str, Any]) -> Grant:
    origin, path = split_url(fields["url"])
    return Grant(
        raw=json.dumps(fields).encode(),
        fields=fields,
        url=fields["url"],
        origin=origin,
        path=path,
        endpoint=fields["endpoint"],
        cost=fields["cost"],
        reqnum=fields["reqnum"],
        signature=fields["signature"],
        request_idx=fields["request_idx"],
    )


def vectors() -> Iterator[Any]:
    for row in VECTORS["rows"]:
        if "form" in row["expect"]:
            yield pytest.param(row["expect"] | {"grant": json.loads(row["grant_json"])}, id=row["id"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
grants = st.fixed_dictionaries(
    {
        "cost": st.integers(0, 10**6) | st.floats(0, 1e6),
        "endpoint": st.text(max_size=12),
        "reqnum": st.integers(0, 10**9),
        "request_idx": st.integers(1, 10**9),
        "url": st.text(max_size=30),
        "__request_id": st.text(max_size=8),
    }
)


class TestForms:
    def test_names_and_order(self) -> None:
        assert [form.name for form in FORMS] == [
            "2026-url",
            "2025-10-sorted",
            "2025-10-ordered",
            "2024-03-ordered",
            "2024-03-load",
            "2024-03-load-first",
            "2023-10-first",
            "documented-triple",
        ]
        seen = [form for form in FORMS if form.seen]
        assert seen == list(FORMS[:-1])
        last_days = [form.until or "still in use" for form in seen]
        assert last_days == sorted(last_days, reverse=True)
        assert all(form.since and form.source for form in seen)

    @pytest.mark.parametrize("vector", list(vectors()))
    def test_the_text_is_the_one_that_was_signed(self, vector: dict[str, Any]) -> None:
        (form,) = (form for form in FORMS if form.name == vector["form"])
        assert signed_text(form, vector["grant"]) == vector["signed"].encode()

    @pytest.mark.parametrize(
        ("name", "labels"),
        [
            ("2024-03-load-first", {"load": "cost", "endpoint": "endpoint", "reqnum": "reqnum", "url": "url"}),
            ("documented-triple", {"url": "url", "cost": "cost", "reqnum": "reqnum"}),
        ],
    )
    def test_the_text_of_the_forms_that_no_vector_shows(self, name: str, labels: dict[str, str]) -> None:
        (form,) = (form for form in FORMS if form.name == name)
        text = json.dumps({label: SAMPLE[field] for label, field in labels.items()}, indent=4)
        assert signed_text(form, SAMPLE) == text.encode()

    @given(
        labels=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=4).map("f-".__add__)), min_size=1, max_size=5),
        data=st.data(),
    )
    def test_the_text_is_what_json_dumps_makes(self, labels: list[tuple[str, str]], data: st.DataObject) -> None:
        pairs = tuple({label: (label, field) for label, field in labels}.values())
        fields = {field: data.draw(json_values) for _, field in pairs}
        text = signed_text(SigningForm(name="any", fields=pairs), fields)
        assert text == json.dumps({label: fields[field] for label, field in pairs}, indent=4).encode()

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
    def test_no_text_without_every_field(self, form: SigningForm) -> None:
        for name in form.covers:
            assert signed_text(form, {key: value for key, value in SAMPLE.items() if key != name}) is None

    def test_no_text_for_what_has_no_json(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (10**5000, object(), {1, 2}, deep):
            assert signed_text(URL_FORM, {"url": value}) is None

    @pytest.mark.parametrize(
        "fields",
        [
            (),
            "url",
            ("url", "url"),
            (("a", "url"), ("a", "cost")),
            (("a", "b", "c"),),
            (("a", 1),),
            (1,),
            ("signature",),
        ],
        ids=repr,
    )
    def test_useless_fields_are_refused(self, fields: Any) -> None:
        with pytest.raises(InvalidValue, match="fields must"):
            SigningForm(name="mine", fields=fields)

    def test_a_form_of_the_callers_own(self) -> None:
        form = SigningForm(name="mine", fields=("reqnum", ("100% where", "url")))
        assert form.covers == ("reqnum", "url")
        grant = signed(SAMPLE, form)
        assert verify(grant, KEY).reason is Reason.NO_MATCH
        verdict = verify(grant, KEY, forms=[*FORMS, form])
        assert (verdict.verified, verdict.form, verdict.covers) == (True, "mine", ("reqnum", "url"))

    def test_a_form_whose_fields_are_missing_ends_no_search(self) -> None:
        forms = [SigningForm(name="mine", fields=("nowhere",)), URL_FORM]
        assert verify(signed(SAMPLE), KEY, forms=forms).form == URL_FORM.name

    @pytest.mark.parametrize("forms", [(), ("url",), (URL_FORM, SigningForm(name=URL_FORM.name, fields=("cost",)))])
    def test_useless_tables_are_refused(self, forms: Any) -> None:
        with pytest.raises(InvalidValue, match="forms must"):
            verify(SAMPLE, KEY, forms=forms)


class TestKeys:
    @pytest.mark.parametrize(
        "data",
        [
            SPKI_PEM,
            SPKI_PEM.decode(),
            PKCS1_PEM,
            PKCS1_PEM.decode(),
            SPKI_DER,
            PKCS1_DER,
            base64.b64encode(SPKI_DER),
            base64.encodebytes(SPKI_DER).decode(),
            b"\n" + SPKI_PEM + b"\n",
            PRIVATE.public_key(),
            KEY,
        ],
        ids=lambda data: type(data).__name__,
    )
    def test_load_takes_every_way_to_write_it(self, data: Any) -> None:
        assert PublicKey.load(data) == KEY

    def test_the_ways_by_name(self) -> None:
        assert (
            PublicKey.from_pem(SPKI_PEM) == PublicKey.from_pem(SPKI_PEM.decode()) == PublicKey.from_der(SPKI_DER) == KEY
        )

    def test_what_a_key_says_of_itself(self) -> None:
        assert (KEY.bits, KEY.size, KEY.fingerprint) == (2048, 256, hashlib.sha256(SPKI_DER).hexdigest())
        assert repr(KEY) == f"PublicKey(bits=2048, fingerprint='{KEY.fingerprint}')"
        assert len({KEY, PublicKey.load(SPKI_PEM), OTHER_KEY}) == 2
        assert KEY.fingerprint != KEY

    @pytest.mark.parametrize("key", [KEY, SMALL_KEY], ids=["2048", "1024"])
    def test_pickled_and_copied(self, key: PublicKey) -> None:
        for twin in (pickle.loads(pickle.dumps(key)), copy.deepcopy(key)):
            assert twin == key
            assert twin.bits == key.bits

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (PRIVATE_PEM, "private key"),
            (PRIVATE_PEM.decode(), "private key"),
            (PRIVATE_DER, "private key"),
            (PRIVATE, "public_key"),
            (CERTIFICATE_PEM, "certificate"),
            (ec.generate_private_key(ec.SECP256R1()).public_key(), "not an RSA public key but ECPublicKey"),
            (
                ed25519.Ed25519PrivateKey.generate()
                .public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                "not an RSA public key but Ed25519PublicKey",
            ),
            (SPKI_PEM + PKCS1_PEM, "more than one"),
            (SPKI_PEM[:100] + SPKI_PEM[120:], "damaged"),
            (SPKI_DER[:-1], "damaged"),
            (b"", "damaged"),
            ("", "damaged"),
            ("ssh-rsa AAAAB3Nz", "neither PEM nor DER nor base64"),
            ("<html>\ud800</html>", "neither PEM nor DER nor base64"),
            (None, "not an RSA public key but NoneType"),
            (7, "not an RSA public key but int"),
        ],
    )
    def test_anything_else_is_refused_with_the_reason(self, data: Any, reason: str) -> None:
        with pytest.raises(InvalidValue, match=reason):
            PublicKey.load(data)

    def test_text_that_is_no_text_is_no_pem_either(self) -> None:
        with pytest.raises(InvalidValue, match="damaged"):
            PublicKey.from_pem("\ud800")

    def test_a_refused_private_key_is_not_repeated(self) -> None:
        with pytest.raises(InvalidValue) as caught:
            PublicKey.load(PRIVATE_PEM)
        assert PRIVATE_PEM.decode().split("\n")[1] not in str(caught.value)

    def test_sizes(self) -> None:
        small = SMALL_PRIVATE.public_key()
        with pytest.raises(InvalidValue, match="1024 bits, and 2048 to 16384 will do"):
            PublicKey.load(small)
        assert PublicKey.load(small, min_bits=1024).bits == 1024
        with pytest.raises(InvalidValue, match="2048 bits, and 3072"):
            PublicKey.load(SPKI_PEM, min_bits=3072)
        huge = rsa.RSAPublicNumbers(65537, 2**16384 + 1).public_key()
        with pytest.raises(InvalidValue, match="16385 bits"):
            PublicKey.load(huge)
        tiny = rsa.RSAPublicNumbers(65537, 2**1022 + 1).public_key()
        with pytest.raises(InvalidValue, match="1023 bits"):
            PublicKey.load(tiny, min_bits=1024)

    @pytest.mark.parametrize(
        "encoded", [SPKI_PEM, PKCS1_PEM.decode(), SPKI_DER, PKCS1_DER, base64.b64encode(SPKI_DER), PRIVATE.public_key()]
    )
    def test_the_least_size_holds_however_a_key_is_written(self, encoded: Any) -> None:
        assert PublicKey.load(encoded, min_bits=2048) == KEY
        with pytest.raises(InvalidValue, match="2048 bits, and 2049"):
            PublicKey.load(encoded, min_bits=2049)

    def test_the_largest_size(self) -> None:
        largest = rsa.RSAPublicNumbers(65537, 2**16384 - 1).public_key()
        assert PublicKey.load(largest, min_bits=16384).bits == 16384

    @pytest.mark.parametrize("min_bits", [0, 1023, 16385, True, 2048.0, "2048"])
    def test_senseless_least_sizes_are_refused(self, min_bits: Any) -> None:
        with pytest.raises(InvalidValue, match="min_bits"):
            PublicKey.load(SPKI_PEM, min_bits=min_bits)

    def test_recover_and_verifies(self) -> None:
        signature = PRIVATE.sign(b"text", PKCS1v15(), SHA256())
        assert KEY.recover(signature) == hashlib.sha256(b"text").digest()
        assert OTHER_KEY.recover(signature) is None
        assert KEY.verifies(signature, b"text")
        assert not KEY.verifies(signature, b"text ")
        assert not OTHER_KEY.verifies(signature, b"text")


class TestVerify:
    @pytest.mark.parametrize("vector", list(vectors()))
    @pytest.mark.parametrize("shape", [dict, as_grant, MappingProxyType])
    def test_every_vector_is_verified_in_its_form(
        self, vector: dict[str, Any], shape: Callable[[dict[str, Any]], Any]
    ) -> None:
        fields = dict(vector["grant"])
        if shape is as_grant and not fields["url"].isascii():
            fields["url"] = "not a plain address"
            assert verify(fields, VECTOR_KEY).reason is Reason.NO_MATCH
            return
        verdict = verify(shape(fields), VECTOR_KEY)
        (form,) = (form for form in FORMS if form.name == vector["form"])
        assert verdict == Verdict(
            reason=Reason.VERIFIED,
            form=form.name,
            covers=form.covers,
            key=VECTOR_KEY.fingerprint,
            detail=f"form {form.name}, which covers {', '.join(form.covers)}",
        )
        assert verdict.verified

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
    @given(fields=grants, data=st.data())
    @settings(max_examples=25)
    def test_covered_fields_cannot_change_and_others_can(
        self, form: SigningForm, fields: dict[str, Any], data: st.DataObject
    ) -> None:
        grant = signed(fields, form)
        assert verify(grant, KEY, forms=[form]).verified
        name = data.draw(st.sampled_from(sorted(fields)))
        # One byte of the value's JSON, as a hostile proxy would change it: 1 to 2, 1.0 to 1.5, a letter to another.
        text = json.dumps(fields[name])
        at = data.draw(st.integers(0, len(text) - 1))
        changed = text[:at] + data.draw(st.sampled_from(string.printable)) + text[at + 1 :]
        try:
            value = json.loads(changed)
        except ValueError:
            return
        same_text = json.dumps(value) == text
        verdict = verify({**grant, name: value}, KEY, forms=[form])
        assert verdict.verified is (name not in form.covers or same_text)

    @given(fields=grants, bit=st.integers(0, 2047))
    def test_no_bit_of_the_signature_can_change(self, fields: dict[str, Any], bit: int) -> None:
        grant = signed(fields)
        raw = bytearray(base64.b64decode(grant["signature"]))
        raw[bit // 8] ^= 1 << bit % 8
        assert not verify({**grant, "signature": base64.b64encode(raw).decode()}, KEY).verified

    @given(fields=grants, at=st.integers(0, 343), letter=st.characters(codec="utf-8"))
    def test_no_character_of_the_signature_can_change(self, fields: dict[str, Any], at: int, letter: str) -> None:
        grant = signed(fields)
        text = grant["signature"]
        changed = text[:at] + letter + text[at + 1 :]
        assert verify({**grant, "signature": changed}, KEY).verified is (changed == text)

    @pytest.mark.parametrize(
        ("before", "after"),
        [(100, 100.0), (100.0, 100), (1, True), (1, 1.0), (0, False), (0, -0.0), (0.0, -0.0), (1, "1"), (None, "null")],
    )
    def test_numbers_that_python_calls_equal_are_not_the_same(self, before: Any, after: Any) -> None:
        form = FORMS[1]
        grant = signed({**SAMPLE, "cost": before}, form)
        verifier = Verifier(KEY)
        assert verifier.check(grant).verified
        assert verifier.check({**grant, "cost": after}).reason is Reason.NO_MATCH
        assert verifier.check(grant).verified

    def test_the_first_form_that_matches_is_named(self) -> None:
        early = SigningForm(name="early", fields=("url",))
        grant = signed(SAMPLE)
        assert verify(grant, KEY, forms=[early, URL_FORM]).form == "early"
        assert verify(grant, KEY, forms=[URL_FORM, early]).form == "2026-url"

    def test_a_form_that_was_never_seen_says_so(self) -> None:
        verdict = verify(signed(SAMPLE, FORMS[-1]), KEY)
        assert verdict.form == "documented-triple"
        assert "never seen" in str(verdict)

    @pytest.mark.parametrize("case", [str.lower, str.upper, str])
    def test_hex_is_read_too(self, case: Callable[[str], str]) -> None:
        grant = signed(SAMPLE)
        hexed = base64.b64decode(grant["signature"]).hex()
        assert verify({**grant, "signature": case(hexed)}, KEY).verified
        assert not verify({**grant, "signature": case(hexed[:-1] + ("0" if hexed[-1] != "0" else "1"))}, KEY).verified

    def test_the_keys_length_decides_between_hex_and_base64(self) -> None:
        # 512 characters are the hex of 256 bytes and the base64 of 384.
        long_private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        long_key = PublicKey.load(long_private.public_key())
        grant = signed(SAMPLE)
        hexed = {**grant, "signature": base64.b64decode(grant["signature"]).hex()}
        assert len(hexed["signature"]) == len(signed(SAMPLE, private=long_private)["signature"]) == 512
        for keys in ([KEY, long_key], [long_key, KEY]):
            assert verify(hexed, keys).key == KEY.fingerprint
            assert verify(signed(SAMPLE, private=long_private), keys).key == long_key.fingerprint
        assert verify(hexed, long_key).reason is Reason.NO_MATCH

    @pytest.mark.parametrize(
        "respell",
        [
            lambda text: text.rstrip("="),
            lambda text: text + "=",
            lambda text: text[:-3] + chr(ord(text[-3]) + 1) + "==",
            lambda text: " " + text,
            lambda text: text + "\n",
            lambda text: text[:76] + "\n" + text[76:],
            lambda text: text[:76] + "\n" + text[77:],
            lambda text: text[:-4] + "====",
            lambda text: text[:-2] + "AA",
            lambda text: text[:-1] + "A",
            lambda text: text.replace("=", "-"),
            lambda text: "-" + text[1:],
            lambda text: "\u0661" + text[1:],
            lambda text: "\ud800" + text[1:],
            lambda text: "",
            lambda text: text * 2,
            lambda text: base64.b64decode(text).hex()[:-2],
            lambda text: base64.b64decode(text).hex()[:-1] + "g",
            lambda text: base64.b64decode(text).hex()[:-1] + " ",
            lambda text: base64.b64encode(base64.b64decode(text)[:-1]).decode(),
            lambda text: base64.b64encode(base64.b64decode(text) + b"\0").decode(),
            lambda text: base64.b64encode(text.encode()).decode(),
            lambda text: text.encode(),
            lambda text: None,
            lambda text: 12345,
            lambda text: [text],
            lambda text: {"value": text},
        ],
    )
    def test_any_other_spelling_is_malformed(self, respell: Callable[[str], Any]) -> None:
        grant = signed(SAMPLE)
        verdict = verify({**grant, "signature": respell(grant["signature"])}, KEY)
        assert (verdict.reason, verdict.form, verdict.covers, verdict.key) == (Reason.MALFORMED, None, (), None)

    def test_a_missing_signature_is_malformed(self) -> None:
        assert verify(SAMPLE, KEY).reason is Reason.MALFORMED

    def test_a_malformed_signature_says_what_would_fit(self) -> None:
        verdict = verify({**SAMPLE, "signature": "c2hvcnQ="}, [KEY, SMALL_KEY, OTHER_KEY])
        assert "8 characters" in str(verdict)
        assert "128 or 256 bytes" in str(verdict)

    @given(
        fields=st.dictionaries(
            st.sampled_from([*SAMPLE, "signature"]),
            json_values
            | st.just(10**5000)
            | st.just("\ud800")
            | st.just(float("nan"))
            | st.binary()
            | st.just(object()),
        ),
        use_signature=st.booleans(),
    )
    def test_no_fields_make_it_raise(self, fields: dict[str, Any], use_signature: bool) -> None:
        if use_signature:
            fields["signature"] = signed(SAMPLE)["signature"]
        verdict = verify(fields, KEY)
        assert verdict.reason in {Reason.MALFORMED, Reason.NO_MATCH}
        assert Verifier(KEY).check(fields) == verdict

    @pytest.mark.parametrize("value", ["\ud800", float("nan"), float("-inf"), ["a", {"b": []}], {}, None, True])
    def test_odd_values_are_verified_as_the_worker_would(self, value: Any) -> None:
        assert verify(signed({**SAMPLE, "url": value}), KEY).verified

    def test_signatures_of_other_schemes_do_not_verify(self) -> None:
        text = signed_text(URL_FORM, SAMPLE)
        assert text is not None
        pss = PRIVATE.sign(text, PSS(mgf=MGF1(SHA256()), salt_length=32), SHA256())
        sha512 = PRIVATE.sign(text, PKCS1v15(), SHA512())
        for raw in (pss, sha512, bytes(256), b"\xff" * 256, (1).to_bytes(256, "big")):
            assert verify({**SAMPLE, "signature": base64.b64encode(raw).decode()}, KEY).reason is Reason.NO_MATCH

    def test_a_forged_padding_under_exponent_three_does_not_verify(self) -> None:
        # Bleichenbacher's forgery of 2006: a perfect cube that begins like a padded digest and ends in rubbish.
        text = signed_text(URL_FORM, SAMPLE)
        assert text is not None
        prefix = bytes.fromhex("3031300d060960864801650304020105000420")
        block = b"\x00\x01" + b"\xff" * 8 + b"\x00" + prefix + hashlib.sha256(text).digest()
        low = int.from_bytes(block.ljust(256, b"\x00"), "big")
        high = int.from_bytes(block.ljust(256, b"\xff"), "big")
        root = 1 << (high.bit_length() // 3 + 1)
        while root**3 > high:  # Newton's way to the integer cube root
            root = (2 * root + high // root**2) // 3
        assert low <= root**3 <= high
        key = PublicKey.load(CUBE_PRIVATE.public_key())
        forged = {**SAMPLE, "signature": base64.b64encode(root.to_bytes(256, "big")).decode()}
        assert verify(forged, key).reason is Reason.NO_MATCH
        assert verify(signed(SAMPLE, private=CUBE_PRIVATE), key).verified

    def test_no_match_says_whose_signature_it_is(self) -> None:
        grant = signed(SAMPLE)
        moved = verify({**grant, "url": "https://203.0.113.8:1"}, [OTHER_KEY, KEY])
        assert (moved.reason, moved.key) == (Reason.NO_MATCH, KEY.fingerprint)
        strange = verify(grant, OTHER_KEY)
        assert (strange.reason, strange.key) == (Reason.NO_MATCH, None)
        assert str(moved) != str(strange)

    @pytest.mark.parametrize(
        "keys", [SPKI_PEM, SPKI_PEM.decode(), SPKI_DER, PRIVATE.public_key(), KEY, [OTHER_KEY, SPKI_PEM], iter([KEY])]
    )
    def test_keys_as_they_come(self, keys: Any) -> None:
        assert verify(signed(SAMPLE), keys).key == KEY.fingerprint

    def test_no_keys(self) -> None:
        assert verify(signed(SAMPLE), ()).reason is Reason.NO_KEY

    @pytest.mark.parametrize("grant", [None, [], "{}", b"{}", 7])
    def test_what_is_no_grant_is_refused(self, grant: Any) -> None:
        with pytest.raises(InvalidValue, match="give a Grant or a mapping"):
            verify(grant, KEY)

    def test_keys_that_are_none_are_refused(self) -> None:
        with pytest.raises(InvalidValue):
            verify(SAMPLE, [KEY, "nonsense"])


class TestVerifier:
    def test_modes(self) -> None:
        grant = signed(SAMPLE)
        bad = {**grant, "url": "https://203.0.113.8:1"}
        assert Verifier(KEY).mode is SignatureMode.REPORT
        assert Verifier(KEY, mode=SignatureMode.OFF).check(bad).reason is Reason.OFF
        for mode in (SignatureMode.REPORT, SignatureMode.REQUIRE):
            verifier = Verifier(KEY, mode=mode)
            assert verifier.mode is mode
            assert verifier.check(grant).verified
            assert not verifier.check(bad).verified
        assert Verifier().check(grant).reason is Reason.NO_KEY
        assert Verifier(mode=SignatureMode.OFF).check(grant).reason is Reason.OFF

    @pytest.mark.parametrize(
        "arguments", [{"mode": "report"}, {"mode": None}, {"memory": -1}, {"memory": True}, {"memory": 1.5}]
    )
    def test_useless_arguments_are_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidValue, match="must be"):
            Verifier(KEY, **arguments)

    def test_what_it_says_of_itself(self) -> None:
        forms = (URL_FORM, FORMS[1])
        verifier = Verifier([KEY, OTHER_KEY, SPKI_PEM], forms=forms)
        assert verifier.keys == (KEY, OTHER_KEY)
        assert verifier.forms == forms

    def test_keys_rotate(self) -> None:
        old, new = signed(SAMPLE), signed(SAMPLE, private=OTHER_PRIVATE)
        verifier = Verifier(KEY, mode=SignatureMode.REQUIRE, forms=FORMS[:2])
        assert [verifier.check(grant).key for grant in (old, new)] == [KEY.fingerprint, None]
        verifier.add_key(OTHER_PRIVATE.public_key())
        assert [verifier.check(grant).key for grant in (old, new)] == [KEY.fingerprint, OTHER_KEY.fingerprint]
        with pytest.raises(InvalidValue):
            verifier.add_key("nonsense")
        assert verifier.keys == (KEY, OTHER_KEY)
        only_new = verifier.with_keys(OTHER_KEY)
        assert [only_new.check(grant).verified for grant in (old, new)] == [False, True]
        assert (only_new.mode, only_new.forms) == (SignatureMode.REQUIRE, FORMS[:2])
        assert [verifier.check(grant).verified for grant in (old, new)] == [True, True]

    def test_a_second_look_gives_the_very_same_verdict(self) -> None:
        verifier = Verifier(KEY)
        grant = signed(SAMPLE)
        first = verifier.check(grant)
        assert verifier.check({**grant, "reqnum": 13, "cost": 1, "request_idx": 99}) is first

    def test_memory_is_bounded_and_the_oldest_goes(self) -> None:
        verifier = Verifier(KEY, memory=3)
        many = [signed({**SAMPLE, "url": f"https://203.0.113.{n}:1"}) for n in range(5)]
        first = [verifier.check(grant) for grant in many]
        assert all(verdict.verified for verdict in first)
        again = [verifier.check(grant) for grant in reversed(many)]
        assert [new is old for new, old in zip(again, reversed(first), strict=True)] == [True] * 3 + [False] * 2
        assert again == first[::-1]

    @pytest.mark.parametrize(
        ("memory", "forms", "remembered"),
        [(0, FORMS, False), (1, FORMS, True), (9, FORMS[1:] + FORMS[:1], False)],
    )
    def test_when_a_verdict_is_remembered(self, memory: int, forms: tuple[SigningForm, ...], remembered: bool) -> None:
        verifier = Verifier(KEY, memory=memory, forms=forms)
        grant = signed(SAMPLE)
        assert (verifier.check(grant) is verifier.check(grant)) is remembered

    def test_nothing_shows_the_signature(self) -> None:
        verifier = Verifier(KEY)
        grant = signed(SAMPLE)
        shown = [repr(as_grant(grant))]
        for fields in (grant, {**grant, "url": "x"}, {**grant, "signature": grant["signature"][:-1]}):
            verdict = verifier.check(fields)
            shown += [repr(verdict), str(verdict)]
        shown += [repr(verifier), str(verifier), repr(pickle.dumps(verifier))]
        assert not [text for text in shown if grant["signature"][:16] in text]

    def test_pickled_without_what_it_remembers(self) -> None:
        verifier = Verifier(KEY, mode=SignatureMode.REQUIRE, forms=FORMS[:3], memory=5)
        first = verifier.check(signed(SAMPLE))
        twin = pickle.loads(pickle.dumps(verifier))
        assert (twin.keys, twin.mode, twin.forms) == (verifier.keys, verifier.mode, verifier.forms)
        second = twin.check(signed(SAMPLE))
        assert second == first
        assert second is not first

    def test_verdicts_read_well(self) -> None:
        verifier = Verifier(KEY)
        assert str(verifier.check(signed(SAMPLE))) == "verified: form 2026-url, which covers url"
        assert str(Verifier().check(SAMPLE)) == "no key: the engine's public key is not known"
        assert str(Verifier(mode=SignatureMode.OFF).check(SAMPLE)) == "off: signatures are not checked"


POOL = [
    signed({**SAMPLE, "url": url, "cost": cost}, form, private)
    for url in ("https://a.example", "https://b.example")
    for cost in (1, 1.0, True)
    for form in (FORMS[0], FORMS[1])
    for private in (PRIVATE, OTHER_PRIVATE)
]
SIGNATURES = [grant["signature"] for grant in POOL] + ["", "x", None, ["x"], base64.b64encode(bytes(256)).decode()]
# The first of the second table covers `elsewhere` alone, under the label of the form after it.
TABLES = [FORMS, (SigningForm(name="elsewhere", fields=(("url", "elsewhere"),)), *FORMS)]


class SameWithAndWithoutMemory(RuleBasedStateMachine):
    """Whatever was seen before, a `Verifier` says what `verify` says."""

    @initialize(
        memory=st.integers(0, 4), forms=st.sampled_from(TABLES), keys=st.sampled_from([(KEY,), (OTHER_KEY, KEY)])
    )
    def start(self, memory: int, forms: tuple[SigningForm, ...], keys: tuple[PublicKey, ...]) -> None:
        self.verifier = Verifier(keys, memory=memory, forms=forms)

    @rule(
        grant=st.sampled_from(POOL),
        signature=st.none() | st.sampled_from(SIGNATURES),
        changes=st.dictionaries(
            st.sampled_from(["url", "cost", "reqnum", "elsewhere"]),
            st.sampled_from([1, 1.0, True, "https://a.example", "https://b.example", None, []]),
            max_size=2,
        ),
    )
    def check(self, grant: dict[str, Any], signature: Any, changes: dict[str, Any]) -> None:
        fields = {**grant, **changes, **({} if signature is None else {"signature": signature})}
        assert self.verifier.check(fields) == verify(fields, self.verifier.keys, forms=self.verifier.forms)

    @rule()
    def rotate(self) -> None:
        self.verifier.add_key(OTHER_KEY)


TestSameWithAndWithoutMemory = SameWithAndWithoutMemory.TestCase
TestSameWithAndWithoutMemory.settings = settings(max_examples=50, stateful_step_count=20)


def test_forms_modes_and_verdicts_need_no_cryptography() -> None:
    program = (
        "import sys\n"
        "from vastroute import FORMS, Reason, SignatureMode, Verifier, signed_text\n"
        "assert Verifier().check({}).reason is Reason.NO_KEY\n"
        "assert Verifier(mode=SignatureMode.OFF).check({}).reason is Reason.OFF\n"
        "assert signed_text(FORMS[0], {'url': 'x'})\n"
        "print(sorted(set(sys.modules) & {'cryptography', 'hashlib', 'hmac', 'ssl', 'socket'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
