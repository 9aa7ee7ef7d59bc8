"""A monitor: rules that look at every explanation, and events when one begins or ceases to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isnan

from gcpp_edge.errors import InputError
from gcpp_edge.explanation import Explanation
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.events import CLEARED, RAISED, Event, Trouble
from gcpp_edge.pipeline.measures import Measure
from gcpp_edge.pipeline.rules import Named, Rule, parse_rule

WHERE = "monitor"  # of its troubles


@dataclass
class _Watch:
    """A rule at work. streak: frames in a row that speak for a change. is_failing: told already."""

    rule: Rule
    measure: Measure
    is_active: bool = False
    streak: int = 0
    is_failing: bool = False


class Monitor:
    """Looks at explanations one after the other and says when a rule begins or ceases to hold.

        monitor = Monitor(["probability<0.4", "inside:0.25,0.25,0.75,0.75<0.5 after 5"], on_event=print)
        for explanation in explainer.stream("v4l2://0"):
            if monitor(explanation):
                robot.slow_down()

    rules: as parse_rule reads them, or Rule objects. on_event: called with each event. Give it raw explanations: a
    smoothed map has jumps and weak frames averaged away, and `after` is the smoothing that a rule needs.

    A rule whose function raises or gives NaN has no value on that frame, as if it had not been: it stays as it is, and
    its frames in a row begin anew. The others go on, and so does the caller.

    failures: times that a rule or on_event failed. troubles: what the latest call has to tell of failures, each run of
    them once. active: names of the rules that hold now. Raises InputError for a rule that is none, or two of one name.
    Not for several streams at once, nor for calls from several threads at a time.
    """

    def __init__(self, rules: Iterable[Rule | str], on_event: Callable[[Event], object] | None = None) -> None:
        found = [_rule_of(rule) for rule in ([rules] if isinstance(rules, str) else rules)]
        names = [rule.name for rule in found]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"Two rules are named {name!r}. Leave one out, or give it another name.")
        self._watches = [_Watch(rule, _begun(rule)) for rule in found]
        self._on_event, self._is_on_event_failing = on_event, False
        self.failures = 0
        self.troubles: list[Trouble] = []

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules, in their order."""
        return tuple(watch.rule for watch in self._watches)

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the rules that hold now, in their order."""
        return tuple(watch.rule.name for watch in self._watches if watch.is_active)

    def __call__(self, explanation: Explanation, capture: Capture | None = None) -> tuple[Event, ...]:
        """What changed on this frame, in the order of the rules. capture: for the events, else the explanation's."""
        self.troubles = []
        capture = explanation.capture if capture is None else capture
        found = [self._look(watch, explanation, capture) for watch in self._watches]
        events = tuple(event for event in found if event is not None)
        for event in events:
            self._tell(event)
        return events

    def _look(self, watch: _Watch, explanation: Explanation, capture: Capture | None) -> Event | None:
        value = self._value(watch, explanation)
        rule = watch.rule
        if value is None or not (rule.is_back(value) if watch.is_active else rule.is_beyond(value)):
            watch.streak = 0
            return None
        watch.streak += 1
        if watch.streak < rule.after:
            return None
        watch.is_active, watch.streak = not watch.is_active, 0
        return _event(rule, watch.is_active, value, capture)

    def _value(self, watch: _Watch, explanation: Explanation) -> float | None:
        """What the rule measures, or None where it has no value; a failure is counted, and told if it is a new one."""
        try:
            found = watch.measure(explanation)
            value = None if found is None else float(found)
            reason = "its value is NaN" if value is not None and isnan(value) else ""
        except Exception as error:  # noqa: BLE001 - a rule may be the user's own, and must not end the stream
            value, reason = None, _described(error)
        if reason:
            self._fail(f"rule {watch.rule.name!r} failed, and is left out while it does: {reason}", watch.is_failing)
        watch.is_failing = bool(reason)
        return None if reason else value

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
            self._is_on_event_failing = False
        except Exception as error:  # noqa: BLE001 - it is the user's own, and must not end the stream
            self._fail(f"on_event failed on {event.text!r}: {_described(error)}", self._is_on_event_failing)
            self._is_on_event_failing = True

    def _fail(self, text: str, is_told: bool) -> None:
        self.failures += 1
        if not is_told:
            self.troubles.append(Trouble(WHERE, text))


def _rule_of(rule: Rule | str) -> Rule:
    if isinstance(rule, str):
        return parse_rule(rule)
    if not isinstance(rule, Rule):
        raise InputError(f"rules: expected a Rule or its text, found {type(rule).__name__}.")
    return rule


def _begun(rule: Rule) -> Measure:
    return rule.function.begin() if isinstance(rule.function, Named) else rule.function


def _event(rule: Rule, is_active: bool, value: float, capture: Capture | None) -> Event:
    verb = "holds" if is_active else "holds no longer"
    row = f", the last of {rule.after} frames in a row" if rule.after > 1 else ""
    text = f"{rule.name} {verb}: {value:.3g}{row}"
    return Event(rule.name, RAISED if is_active else CLEARED, value, capture, text)


def _described(error: Exception) -> str:
    """In one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
