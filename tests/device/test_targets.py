"""Which class is meant."""

from dataclasses import replace

import numpy as np
import pytest

from gcpp_edge.errors import TargetError
from gcpp_edge.targets import resolve_target, resolve_targets


@pytest.fixture
def contract(shared_model):
    return shared_model.contract


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (0, 0),
        (6, 6),
        (-1, -1),
        (-3, -3),
        (np.int64(2), 2),
        ("beagle", 2),
        ("BEAGLE", 2),
        (" Tabby Cat ", 0),
        ("tabby", 0),
        ("sleep", 6),
    ],
)
def test_a_target_is_an_index_a_rank_or_a_name(contract, target, value) -> None:
    assert resolve_target(target, contract) == value


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (7, "target 7: this model has classes 0 to 6, and ranks -1 .best. to -3"),
        (-4, "target -4: .*Export with --ranks for deeper ones"),
        (2.0, "found float"),
        (None, "found NoneType"),
        (True, "found True"),
        ("", "empty text"),
        ("cat", "2 classes match: 0 'tabby cat', 1 'tiger cat'. Use an index"),
        ("crane", "2 classes match: 3 'crane', 4 'crane'. Use an index"),
        ("eagle owl", "no class of this name. Near it: beagle"),
        ("zzz", "no class of this name. gcpp-edge inspect lists them"),
    ],
)
def test_a_target_that_means_no_class_is_refused(contract, target, message) -> None:
    with pytest.raises(TargetError, match=message):
        resolve_target(target, contract)


def test_an_exact_name_wins_over_longer_ones(contract) -> None:
    assert resolve_target("cat", replace(contract, labels=("cat", "cat flap", *contract.labels[2:]))) == 0


def test_a_name_needs_a_model_with_names(contract) -> None:
    with pytest.raises(TargetError, match="holds no class names"):
        resolve_target("cat", replace(contract, labels=()))


def test_many_matches_are_counted_and_some_shown(contract) -> None:
    many = replace(contract, labels=tuple(f"cat {index}" for index in range(7)))
    with pytest.raises(TargetError, match="7 classes match: .* and 2 more"):
        resolve_target("cat", many)


def test_ranks_end_with_the_classes(contract) -> None:
    with pytest.raises(TargetError, match="to -3"):
        resolve_target(-5, contract)
    two = replace(contract, ranks=5, scores=replace(contract.scores, classes=2))
    with pytest.raises(TargetError, match="to -2"):
        resolve_target(-3, two)


def test_one_target_holds_for_a_whole_batch(contract) -> None:
    assert [target.value for target in resolve_targets("beagle", 3, contract)] == [2, 2, 2]
    assert [target.value for target in resolve_targets(np.array(2), 3, contract)] == [2, 2, 2]


def test_a_batch_takes_a_target_a_frame(contract) -> None:
    assert [target.value for target in resolve_targets(["beagle", -1, 4], 3, contract)] == [2, -1, 4]
    assert [target.value for target in resolve_targets(np.array([1, 2]), 2, contract)] == [1, 2]


def test_too_few_targets_are_refused(contract) -> None:
    with pytest.raises(TargetError, match=r"one a frame \(3\); found 2"):
        resolve_targets([0, 1], 3, contract)
