"""What is strict JSON of values that JSON does not know."""

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from gcpp_edge.pipeline.plain_json import json_text

NAN, INF = float("nan"), float("inf")


class Named(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "null"),
        ([INF, -INF, 1.5], "[null,null,1.5]"),
        ({"a": {"b": (NAN, 2)}}, '{"a":{"b":[null,2]}}'),
        (np.float32("nan"), "null"),
        (np.float64("inf"), "null"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
        (True, "true"),
        (np.array([[1.0, NAN], [2.0, 3.0]]), "[[1.0,null],[2.0,3.0]]"),
        (Named(np.arange(2), Named("x", NAN)), '{"first":[0,1],"second":{"first":"x","second":null}}'),
        ({7: None}, '{"7":null}'),
        ("W\u00fcrst\n\u732b", '"W\\u00fcrst\\n\\u732b"'),
    ],
    ids=str,
)
def test_it_is_one_line_that_every_reader_takes(value: Any, text: str) -> None:
    assert json_text(value) == text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_cannot_be_written_is_no_secret() -> None:
    with pytest.raises(TypeError):
        json_text(object())
