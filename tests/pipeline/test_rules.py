"""Rules as they are written, and what is refused."""

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gcpp_edge
from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.measures import MEASURES
from gcpp_edge.pipeline.rules import AFTER, Named, Rule, parse_rule

BOX = (0.25, 0.25, 0.75, 0.75)

TEXTS = {
    "probability<0.4": Rule("probability<0.4", Named("probability"), "<", 0.4),
    "inside:0.25,0.25,0.75,0.75<0.5": Rule("inside:0.25,0.25,0.75,0.75<0.5", Named("inside", BOX), "<", 0.5),
    "spread>0.6 after 5 clear 0.5": Rule("spread>0.6", Named("spread"), ">", 0.6, 5, 0.5),
    "jump>0.3 clear 0.1": Rule("jump>0.3", Named("jump"), ">", 0.3, AFTER, 0.1),
    "evidence_ratio<0.25 after 1": Rule("evidence_ratio<0.25", Named("evidence_ratio"), "<", 0.25, 1),
    "evidence<2e-05": Rule("evidence<2e-05", Named("evidence"), "<", 2e-5),
    "poles>0": Rule("poles>0", Named("poles"), ">", 0.0),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_rule_is_read_and_written(text: str) -> None:
    assert parse_rule(text) == TEXTS[text]
    assert str(TEXTS[text]) == text


def test_spaces_order_and_spellings_of_numbers_do_not_matter() -> None:
    assert parse_rule("  spread  > .60  clear 5e-1   after 5 ") == TEXTS["spread>0.6 after 5 clear 0.5"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected MEASURE<NUMBER or MEASURE>NUMBER"),
        ("probability", "expected MEASURE<NUMBER or MEASURE>NUMBER"),
        ("probability<", "expected MEASURE<NUMBER or MEASURE>NUMBER"),
        ("0.1<probability<0.4", "expected MEASURE<NUMBER or MEASURE>NUMBER"),
        ("<0.4", "Unknown measure ''. Known: inside:x0,y0,x1,y1, spread, jump"),
        ("certainty<0.4", "Unknown measure 'certainty'. Known: inside:x0,y0,x1,y1, spread, jump"),
        ("probability<=0.4", "a threshold: expected a number, found '=0.4'"),
        ("probability<nan", "a threshold: expected a number, found 'nan'"),
        ("evidence<1e999", "expected a number, found inf"),
        ("evidence<١", "a threshold: expected a number, found '١'"),
        ("probability<40", "probability is a share, 0 to 1, found 40"),
        ("probability<0", "it can never hold"),
        ("spread>1", "it can never hold"),
        ("probability:1<0.4", "probability: takes no numbers, found probability:1"),
        ("probability:<0.4", "expected probability:, found nothing there"),
        ("inside<0.4", "expected a box x0,y0,x1,y1 in shares of the frame"),
        ("inside:<0.4", "expected inside:x0,y0,x1,y1, found nothing there"),
        ("inside:0,0,1<0.4", "x0 < x1 and y0 < y1; found 0.0,0.0,1.0"),
        ("inside:0,0,1,b<0.4", "inside: expected a number, found 'b'"),
        ("inside:100,100,200,200<0.4", "in shares of the frame"),
        ("spread>0.6 for 5", "expected `after FRAMES` and `clear NUMBER`, each once, found 'for 5'"),
        ("spread>0.6 after", "each once, found 'after'"),
        ("spread>0.6 after 5 after 6", "each once, found 'after 5 after 6'"),
        ("spread>0.6 after 0", "expected after to be 1 frame or more, found 0"),
        ("spread>0.6 after 2.5", "after: expected a whole number of frames, found '2.5'"),
        ("spread>0.6 clear 0.7", "expected clear at or below the threshold, found 0.7"),
        ("probability<0.6 clear 0.5", "expected clear at or above the threshold, found 0.5"),
        ("probability<0.6 clear x", "clear: expected a number, found 'x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_rule(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_rule(text)
    message = str(caught.value)
    assert message.startswith(f"Rule {text!r}: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("probability<0.4", 0.44),
        ("probability<0.95", 0.955),
        ("spread>0.6", 0.56),
        ("spread>0.05", 0.045),
        ("evidence<20", 22),
        ("evidence<-20", -18),
        ("evidence_ratio>3", 2.7),
        ("poles>0", 0),
        ("spread>0.6 clear 0.2", 0.2),
        ("spread>0.6 clear 0.6", 0.6),
    ],
)
def test_a_rule_clears_behind_a_margin_that_can_be_reached(text: str, clear: float) -> None:
    assert parse_rule(text).clear_at == pytest.approx(clear)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("", len, "<", 1), "A rule needs a name"),
        (("mine", len, "<=", 1), "expected the comparison < or >"),
        (("mine", len, "<", "1"), "expected a number, found '1'"),
        (("mine", len, "<", float("nan")), "expected a number, found nan"),
        (("mine", len, "<", 1, 1.5), "expected after to be 1 frame or more"),
        (("mine", len, "<", 1, True), "expected after to be 1 frame or more"),
        (("mine", len, ">", 1, 3, 2), "expected clear at or below the threshold"),
    ],
)
def test_a_rule_of_one_s_own_is_checked_too(arguments: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        gcpp_edge.Rule(*arguments)


def test_a_rule_of_one_s_own_is_written_with_its_name() -> None:
    assert str(Rule("mine", len, ">", 2, 4)) == "mine>2 after 4"


def rules() -> st.SearchStrategy[Rule]:
    """Of measures by name, all that may be written."""
    share = st.floats(0, 1)

    @st.composite
    def made(draw: st.DrawFn) -> Rule:
        name, comparison = draw(st.sampled_from(sorted(MEASURES))), draw(st.sampled_from("<>"))
        known = MEASURES[name]
        numbers = ()
        if known.argument:
            x, y = (draw(st.lists(share, min_size=2, max_size=2, unique=True).map(sorted)) for _ in range(2))
            numbers = (x[0], y[0], x[1], y[1])
        never = 0 if comparison == "<" else 1
        values = share.filter(lambda value: value != never) if known.is_share else st.floats(-1e9, 1e9)
        threshold = draw(values)
        limits = (
            (threshold, 1 if known.is_share else None)
            if comparison == "<"
            else (0 if known.is_share else None, threshold)
        )
        clear = draw(st.none() | st.floats(*limits, allow_infinity=False, allow_nan=False))
        measure = Named(name, numbers)
        text = str(Rule("any", measure, comparison, threshold))
        return Rule(text, measure, comparison, threshold, draw(st.integers(1, 1000)), clear)

    return made()


@given(rules())
def test_what_is_written_is_read_back(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule
    assert not rule.is_beyond(rule.clear_at)
    assert rule.is_back(rule.clear_at)


@given(st.text(alphabet=string.ascii_letters[:6] + "inside probability<>=:,.0123456789e-\n", max_size=40))
def test_any_text_is_a_rule_or_an_input_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except InputError:
        return
    assert np.isfinite(rule.threshold)
