"""BUCKET_LIMITS and BUCKET_QUOTAS: what they mean, and what is said of a text that is none."""

from __future__ import annotations

import pytest

from shared.limits import DEFAULT_RATE_LIMITS, LimitClass, Quota, RateLimit, parse_quotas, parse_rate_limits, quota_of


def test_a_class_that_is_left_out_keeps_its_default_and_null_has_no_limit() -> None:
    limits = parse_rate_limits('{"submit": {"per_s": 0.5, "burst": 3}, "poll": {"per_s": 2.5}, "list": null}')
    assert limits == {
        LimitClass.SUBMIT: RateLimit(0.5, 3),
        LimitClass.POLL: RateLimit(2.5, 3),
        LimitClass.ADMIN: DEFAULT_RATE_LIMITS[LimitClass.ADMIN],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it must be a JSON object"),
        ("limits.json", "neither a JSON object nor the path of a file"),
        ('{"sumbit": {}}', "the class 'sumbit' is not known; did you mean submit"),
        ('{"poll": 5}', "the class poll must be a JSON object"),
        ('{"poll": {"per_s": 5, "brust": 1}}', "the class poll: the key 'brust' is not known; did you mean burst"),
        ('{"poll": {}}', "the class poll: per_s must be a number above 0"),
        ('{"poll": {"per_s": 0}}', "per_s must be"),
        ('{"poll": {"per_s": true}}', "per_s must be"),
        ('{"poll": {"per_s": "5"}}', "per_s must be"),
        ('{"poll": {"per_s": 1e300}}', "per_s must be"),
        ('{"poll": {"per_s": 5, "burst": 0}}', "burst must be a whole number from 1"),
        ('{"poll": {"per_s": 5, "burst": 1.5}}', "burst must be"),
        ('{"poll": {"per_s": 5, "burst": NaN}}', "burst must be"),
        ('{"poll": {"per_s": NaN}}', "per_s must be"),
        ('{"submit": {"per_s": 1, "burst": 1}, "submit": null}', "the name 'submit' stands twice in one object"),
        ('{"submit": {"per_s": 1, "per_s": 2}}', "the name 'per_s' stands twice"),
        ('{"submit": ' + "[" * 100_000, "neither a JSON object nor the path of a file"),
    ],
)
def test_a_wrong_limit_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_rate_limits(text)


def test_an_integrator_has_its_own_quota_or_that_of_everyone() -> None:
    quotas = parse_quotas('{"acme": {"queued": 0, "running": null}, "*": {"runs_per_day": 5}}')
    assert quota_of(quotas, "acme") == Quota(queued=0)
    assert quota_of(quotas, "other") == Quota(runs_per_day=5)
    assert quota_of(parse_quotas('{"acme": {}}'), "other") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"acme": 5}', "the integrator acme must be a JSON object"),
        ('{"acme": {"runs_a_day": 5}}', "the integrator acme: the quota 'runs_a_day' is not known"),
        ('{"acme": {"queued": -1}}', "the integrator acme: queued must be a whole number from 0"),
        ('{"acme": {"queued": 9223372036854775808}}', "queued must be a whole number from 0 to"),
        ('{"acme": {"queued": true}}', "queued must be"),
        ('{"acme": {"queued": 1.0}}', "queued must be"),
        ('{"ac me": {"queued": 1}}', "'ac me' is no name of an integrator: 1 to 63 letters"),
        ('{"**": {}}', r"is no name of an integrator: .* or \* for every other integrator"),
        ('{"": {}}', "'' is no name of an integrator"),
        ('{"acme": {"queued": 1}, "acme": {}}', "the name 'acme' stands twice in one object"),
        ('{"acme": {"queued": 1, "queued": null}}', "the name 'queued' stands twice"),
    ],
)
def test_a_wrong_quota_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_quotas(text)
