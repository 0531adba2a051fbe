"""The key ring and the seal: what opens, what does not, and what is said of a wrong setting."""

from __future__ import annotations

import base64

import pytest

from shared.errors import EncryptionKeyMissing, SealBroken, SettingsError
from shared.sealing import (
    NO_SEALER,
    KeyRing,
    Sealer,
    checkpoint_place,
    input_place,
    key_id_of,
    log_place,
    marked_place,
    output_place,
    parse_key_ring,
)
from shared.settings import Settings

FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))
TEXT = base64.b64encode(FIRST).decode()


def test_a_value_opens_at_its_place_alone_and_twice_the_same_is_sealed_differently() -> None:
    sealer = Sealer(KeyRing({"a": FIRST}))
    sealed = sealer.seal(b"content", "run-1:input")
    assert (sealer.open(sealed, "run-1:input"), key_id_of(sealed)) == (b"content", "a")
    assert sealed != sealer.seal(b"content", "run-1:input")
    with pytest.raises(SealBroken):
        sealer.open(sealed, "run-2:input")


def test_each_value_of_each_run_has_a_place_of_its_own() -> None:
    of_runs, of_steps = (input_place, log_place), (output_place, marked_place, checkpoint_place)
    places = [place(run) for place in of_runs for run in ("1", "2")]
    places += [place(run, step) for place in of_steps for run in ("1", "2") for step in ("a", "b")]
    assert len(set(places)) == 16


def test_no_changed_byte_passes() -> None:
    sealer = Sealer(KeyRing({"a": FIRST, "b": SECOND}))
    sealed = sealer.seal(b"content", "p")
    for index in range(1, len(sealed)):
        changed = sealed[:index] + bytes((sealed[index] ^ 1,)) + sealed[index + 1 :]
        with pytest.raises((SealBroken, EncryptionKeyMissing)):
            sealer.open(changed, "p")
    for end in range(1, len(sealed)):
        with pytest.raises((SealBroken, EncryptionKeyMissing)):
            sealer.open(sealed[:end], "p")


def test_the_first_key_seals_and_every_key_opens() -> None:
    old = Sealer(KeyRing({"a": FIRST})).seal(b"content", "p")
    both = Sealer(KeyRing({"b": SECOND, "a": FIRST}))
    assert (both.open(old, "p"), key_id_of(both.move(old, "p", "q"))) == (b"content", "b")
    with pytest.raises(EncryptionKeyMissing, match="'a'"):
        Sealer(KeyRing({"b": SECOND})).open(old, "p")


def test_without_keys_what_is_clear_stays_as_it_is_and_what_is_sealed_is_refused() -> None:
    assert NO_SEALER.open(b"{}", "p") == b"{}"
    with pytest.raises(EncryptionKeyMissing):
        NO_SEALER.open(Sealer(KeyRing({"a": FIRST})).seal(b"", "p"), "p")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("a:c2hvcnQ=", "the key a has 5 bytes and must have 32"),
        (f"a:{TEXT},a:{TEXT}", "given twice"),
        (f"a:{TEXT},b:{TEXT}", "the key b is the same as another one"),
        (f"{TEXT}", "entry 1 is not id:base64"),
        (f"a:{TEXT},", "entry 2 is not id:base64"),
        (f"a:{TEXT[:-4]}?!", "the key a is not valid base64"),
    ],
)
def test_a_wrong_key_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, keys: str, fault: str) -> None:
    monkeypatch.setenv("BUCKET_ENCRYPTION_KEYS", keys)
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ()
    assert fault in str(raised.value)
    assert TEXT[:8] not in str(raised.value)


def test_sealed_payloads_need_a_key_and_no_text_of_a_ring_shows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_ENCRYPT_PAYLOADS", "true")
    with pytest.raises(SettingsError, match="BUCKET_ENCRYPTION_KEYS"):
        Settings.from_environ()
    monkeypatch.setenv("BUCKET_ENCRYPTION_KEYS", f"a:{TEXT}")
    settings = Settings.from_environ()
    assert repr(parse_key_ring(f"a:{TEXT}")) == "KeyRing(a)"
    assert TEXT not in repr(settings)
    assert repr(FIRST) not in repr(settings)
