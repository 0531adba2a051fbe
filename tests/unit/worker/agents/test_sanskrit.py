"""Transliteration, aksharas, weights and the anushtubh."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
VERSE = "dharmakṣetre kurukṣetre samavetā yuyutsavaḥ |\nmāmakāḥ pāṇḍavāścaiva kimakurvata sañjaya ||"


@pytest.fixture
def parse(run_agent: Run) -> Callable[[str], dict[str, Any]]:
    return lambda text: run_agent("sanskrit_parser", {"text": text})


Parse = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(
    ("iast", "devanagari"),
    [
        ("saṃskṛtam", "संस्कृतम्"),
        ("jñāna", "ज्ञान"),
        ("aiśvarya", "ऐश्वर्य"),
        ("auṣadha", "औषध"),
        ("praüga", "प्रउग"),
        ("kṛṣṇaḥ", "कृष्णः"),
        ("ṝ ḷ kḷpta", "ॠ ऌ कॢप्त"),
        ("so'ham", "सोऽहम्"),
        ("vāk 108 ||", "वाक् १०८ ॥"),
        ("tām̐ śca", "ताँ श्च"),
    ],
)
def test_words_are_written_in_both_scripts(parse: Parse, iast: str, devanagari: str) -> None:
    for text in (iast, devanagari):
        output = parse(text)
        assert (output["iast"], output["devanagari"]) == (iast, devanagari)
        assert output["unread"] == []
    assert (parse(iast)["script"], parse(devanagari)["script"]) == ("iast", "devanagari")


@drawn(
    st.lists(
        st.tuples(
            st.sampled_from(["", *"k kh g gh c j ñ ṭ ḍh ṇ t th d n p bh m y r l v ś ṣ s kṣ jñ str".split()]),  # noqa: SIM905
            st.sampled_from(["a", "ā", "i", "ī", "u", "ū", "ṛ", "e", "ai", "o", "au"]),
            st.sampled_from(["", "", "ṃ", "ḥ"]),
        ),
        min_size=1, max_size=12,
    ).map(lambda parts: " ".join("".join(part) for part in parts))
)  # fmt: skip
def test_what_is_written_in_devanagari_is_read_back(text: str) -> None:
    from worker.agents.sanskrit_parser.sounds import to_devanagari, to_iast, tokenise

    assert to_iast(tokenise(to_devanagari(tokenise(text)))) == text


def test_other_spellings_of_a_sound_are_read(parse: Parse) -> None:
    assert parse("SAṀSKR̥TA ॐ क\u094d\u200dष")["iast"] == "saṃskṛta oṃ kṣa"


@pytest.mark.parametrize(
    ("word", "aksharas", "weights"),
    [
        ("dharma", ["dha", "rma"], "GL"),
        ("tat", ["tat"], "G"),
        ("namaḥ", ["na", "maḥ"], "LG"),
        ("vadati", ["va", "da", "ti"], "LLL"),
        ("satyaṃ", ["sa", "tyaṃ"], "GG"),
        ("uccaiḥ", ["u", "ccaiḥ"], "GG"),
        ("bhagavān", ["bha", "ga", "vān"], "LLG"),
    ],
)
def test_words_are_split_into_aksharas_with_weights(parse: Parse, word: str, aksharas: list[str], weights: str) -> None:
    (segment,) = parse(word)["segments"]
    assert [akshara["iast"] for akshara in segment["words"][0]["aksharas"]] == aksharas
    assert segment["weights"] == weights


def test_a_weight_depends_on_the_next_word(parse: Parse) -> None:
    assert parse("na ca")["segments"][0]["weights"] == "LL"
    assert parse("na smarati")["segments"][0]["weights"][0] == "G"
    assert parse("tat ca")["segments"][0]["weights"] == "GL"
    assert parse("tad eva")["segments"][0]["weights"] == "LGL"  # one consonant before the next vowel


@pytest.mark.parametrize("text", [VERSE, VERSE.replace("|\n", "\n"), VERSE.replace("\n", "")])
def test_the_anushtubh_is_recognised_in_both_scripts(parse: Parse, text: str) -> None:
    output = parse(text)
    assert output["metre"] == {"name": "anushtubh", "form": "pathya", "verses": 1, "reason": None}
    assert [segment["weights"] for segment in output["segments"]] == ["GGGGLGGGLLGGLGLG", "GLGGLGGLLLGLLGLL"]
    assert parse(output["devanagari"])["metre"] == output["metre"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the segments have none"),
        ("satyaṃ vada", "the segments have 4"),
        (VERSE.replace("sañjaya", "sañjayā ca"), "the segments have 16, 17"),
        (VERSE.replace("yuyutsavaḥ", "yuyutsāvaḥ"), "quarter 2 has LGG as syllables 5 to 7 where an even one has LGL"),
        (VERSE.replace("kuru", "kūru"), "GGG"),
    ],
)
def test_what_is_no_anushtubh_is_told_with_the_reason(parse: Parse, text: str, reason: str) -> None:
    metre = parse(text)["metre"]
    if reason == "GGG":  # a cadence that an odd quarter may have
        assert metre["form"] == "vipula (ma)"
    else:
        assert metre["name"] is None
        assert reason in metre["reason"]


def test_forms_of_the_lexicon_are_recognised_and_others_are_not(parse: Parse) -> None:
    output = parse("रामः वनं गच्छति xyz")
    words = output["segments"][0]["words"]
    assert [word["lexicon"] and word["lexicon"]["lemma"] for word in words[:3]] == ["rāma", "vana", "gam"]
    assert (output["known_words"], output["script"]) == (3, "mixed")
    assert output["unread"] == [{"character": "x", "count": 1}, {"character": "z", "count": 1}]


@pytest.mark.parametrize("text", ["\u094d\u093e\u0902", "k", "ḥḥḥ'", "|" * 50, "\0\ufffe😀", "ंकक्" * 2500, "\n" * 9000])
def test_hostile_texts_have_a_result(parse: Parse, text: str) -> None:
    parse(text)


def test_a_word_of_ten_thousand_consonants_takes_no_more_than_a_moment(run_agent: Any) -> None:
    began = time.process_time()
    run_agent("sanskrit_parser", {"text": "k" * 10_000})
    assert time.process_time() - began < 0.6, "it was quadratic: 2 s"
