"""Judges: intervals cover what they should, Holm's values are those of a library's, words follow."""

import numpy as np
import pytest

from sigreg.lab.judging import (
    Gap,
    compare,
    gap_of_accuracies,
    gap_of_guesses,
    holm,
    interval_of,
    pack,
    unpack,
)


def test_guesses_survive_packing():
    right = np.random.default_rng(0).random(1003) < 0.7
    assert (unpack(pack(right), 1003) == right).all()
    with pytest.raises(ValueError, match="not the number for 1017"):
        unpack(pack(right), 1017)


def drawn(rng, seeds=6, images=800, gain=0.02):
    """Two methods' guesses: images differ in how hard they are and in whom they suit, seeds in their luck."""
    hard, suits = rng.normal(1.0, 1.0, images), rng.normal(0, 1.0, images)
    luck = rng.normal(0, 0.03, (2, seeds))
    chance = [1 / (1 + np.exp(-(hard + sign * suits + luck[k][:, None]))) for k, sign in ((0, 1), (1, -1))]
    a = rng.random((seeds, images)) < np.clip(chance[0] + gain, 0, 1)
    return a, rng.random((seeds, images)) < chance[1]


def test_intervals_cover_for_fresh_seeds_and_fresh_images():
    """The interval over seeds alone is far too narrow; the one with the images covers, and is no waste."""
    rng = np.random.default_rng(1)
    truth = np.mean([100 * (a.mean() - b.mean()) for a, b in (drawn(rng, 2, 20_000) for _ in range(200))])
    hits, seeds_only, wide = 0, 0, 0
    for _ in range(300):
        a, b = drawn(rng)
        both = interval_of(gap_of_guesses(a, b))
        d = 100 * (a.mean(1) - b.mean(1))
        half = 2.571 * d.std(ddof=1) / 6**0.5  # Student's with five degrees of freedom
        hits += both.low < truth < both.high
        seeds_only += abs(d.mean() - truth) < half
        bound = interval_of(gap_of_accuracies(a.mean(1), b.mean(1), a.shape[1]))
        wide += (bound.high - bound.low) > (both.high - both.low)
    assert 0.92 < hits / 300 < 0.995
    assert seeds_only / 300 < 0.88
    assert wide / 300 > 0.95  # accuracies alone allow an upper bound only


def test_holm_is_the_step_down_by_hand():
    p = [0.011, 0.02, 0.6, 0.004]
    assert holm(p) == pytest.approx([0.033, 0.04, 0.6, 0.016])
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08]) and holm([0.7, 0.9]) == [1.0, 1.0]


def test_words_follow_the_gaps_and_their_number():
    one = {"a": Gap(0.25, 0.01, 30, 8)}  # 2.5 standard errors
    assert compare(one)["a"].word == "better, by less than half a point"
    many = {**one, **{str(k): Gap(0.0, 1.0, 30, 8) for k in range(5)}}
    found = compare(many)
    assert found["a"].word == "open" and {found[str(k)].word for k in range(5)} == {"open"}
    assert compare({"a": Gap(-2.0, 0.01, 30, 8)})["a"].word == "worse"
    assert compare({"a": Gap(0.25, 0.01, 30, 8)}, margin=0.2)["a"].word == "better"
    assert compare({"a": Gap(0.0, 0.0, 7, 8)})["a"].word == "equal"
    for bad in (([0.5], [0.5]), ([0.5, 0.6], [0.5])):
        with pytest.raises(ValueError, match="paired by seed"):
            gap_of_accuracies(*bad, 100)
    with pytest.raises(ValueError, match="of one shape"):
        gap_of_guesses(np.ones((1, 5)), np.ones((1, 5)))
