"""A short run of the fuzzers, and regressions they found; `python -m tests.security.fuzz` runs more cases."""

from __future__ import annotations

import json

import pytest

from audioext.errors import DecodeError
from audioext.http.decoding import MAX_DEPTH, MAX_VALUES, parse_json
from audioext.http.messages import HttpResponse
from audioext.models.events import Submitted
from audioext.providers import NAMES, load
from tests.security.fuzz import parsers, port
from tests.security.fuzz.parsers import Tally

PARSER_CASES = 1_000
PORT_CASES = 400


@pytest.mark.no_cover  # like other random searches
def test_mutated_samples_give_a_value_or_our_error() -> None:
    """Each parser of each provider gives a value or our error for a mutated body, and the events fold to one record."""
    tally = Tally()
    parsers.run(cases=PARSER_CASES, seed=0, tally=tally)

    assert {"COMPLETE", "FAILED", "OPEN", "REFUSED"} <= set(tally.outcomes)


async def test_raw_bytes_at_the_port_are_answered_or_cut_off() -> None:
    """Raw bytes at the port give no 500, no traceback and no lasting connection, and valid webhooks are accepted."""
    tally = Tally()
    await port.run(cases=PORT_CASES, seed=0, tally=tally)

    assert {"answered 200", "answered 400", "answered 401", "answered 404"} <= set(tally.outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_id_with_invalid_utf8_leaves_the_fast_path(name: str) -> None:
    """A submit's answer with invalid UTF-8 in its task id leaves the fast path without an error."""
    body = b'{"code":200,"msg":"success","data":{"taskId":"\xff"}}'
    outcome = load(name)("key").parse_submit(HttpResponse(status=200, body=body))

    assert not isinstance(outcome, Submitted) or outcome.task_id.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]",
        b"[" + b",".join([b"{}"] * (MAX_VALUES // 2 + 1)) + b"]",
        json.dumps({"data": json.dumps([0] * MAX_VALUES)}).encode(),
    ],
)
def test_a_body_of_too_many_values_is_not_taken_apart(body: bytes) -> None:
    """A body of too many values is refused by counting its commas and brackets, including those in texts."""
    with pytest.raises(DecodeError, match="more than"):
        parse_json(body)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("beside", ['"]]]"', '"\\"[[["', '"\\\\"', "[{}, []]"])
def test_depth_ignores_brackets_in_texts(brackets: str, beside: str) -> None:
    """The depth check ignores brackets in texts and siblings, and refuses one level too many."""
    opening = "[" if brackets == "[]" else '{"k":'
    levels = MAX_DEPTH - 2
    flat = ",".join(["[[]]"] * MAX_DEPTH)
    body = f"[{beside},{flat},{opening * levels}1{brackets[1] * levels}]".encode()
    deeper = f"[{beside},{flat},{opening * (levels + 2)}1{brackets[1] * (levels + 2)}]".encode()

    assert isinstance(parse_json(body), list)
    with pytest.raises(DecodeError, match="nested deeper"):
        parse_json(deeper)
