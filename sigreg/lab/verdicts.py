r"""What the book says of each claim, computed by a rule: :func:`judge` makes the word, :func:`verdict` shows the box.

The rules stand in ``book/claims.yml`` and travel inside the package. A rule is a list of tests. Each test reads one
quantity, from a stored record or from the chapter that calls :func:`verdict`, and sets a bar for it:

``better: m``
    Holds if the interval lies above 0; fails if it lies below m, a difference that would matter.
``no_worse: m``
    Holds if the interval lies above -m; fails if it lies below -m.
``above: b``, ``below: b``
    Holds if the interval lies on that side of b; fails if it lies on the other.

Anything else is *open*, and so is a test whose quantity no record holds. Tests are of two kinds. Those under ``core``
decide whether there is anything to confirm, those under ``beyond`` whether it holds without a condition:

=====================  ===========================================================
confirmed              all tests hold
confirmed in a region  all core tests hold, another does not
not confirmed          a core test fails
undecided              no core test fails, and one is open
=====================  ===========================================================

All intervals of a claim cover together with 95%: with k looks each has the level 1 - 0.05/k (Bonferroni). Where
accuracies are compared the interval contains the scatter of the seeds and that of the test images.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from scipy import stats

from sigreg.lab.intervals import Interval, interval
from sigreg.lab.judging import gap_of_guesses, interval_of, unpack
from sigreg.lab.notebook import table
from sigreg.lab.reading import by_seed, common_rates, few_label_runs, paired
from sigreg.lab.records import load_record
from sigreg.lab.records import table as rows_of
from sigreg.lab.rules import find_claim, hash_of, records_of, tests_of

WORDS = {
    "confirmed": "All tests of the rule hold.",
    "confirmed in a region": "All core tests hold, another does not: it names the limit.",
    "not confirmed": "A core test fails: its whole interval lies on the wrong side of the bar.",
    "undecided": "No core test fails, and one is open: its interval has the bar inside, or nothing was measured.",
    "open": "We have not yet derived, checked and run it.",
}
STATES = {
    "every run": "The rule is applied whenever the chapter runs.",
    "before": "Rule written before the run.",
    "after": "Rule written after the run.",
    "changed": "Rule changed after the run.",
    "missing": "The record is not there.",
}
ASKS = ("better", "no_worse", "above", "below")
TEST_IMAGES = {True: 10_000, False: 1000}  # of the whole data set, of the embedded subset


# ---------------------------------------------------------------- from numbers to the word


@dataclass(frozen=True)
class Answer:
    """One test of a rule, answered."""

    id: str
    kind: str  # core or beyond
    what: str
    bar: str
    shown: str  # the number with its interval
    seeds: str  # the same over the seeds alone, 95%, where accuracies are compared
    word: str  # yes, no, open
    looks: int  # intervals that were looked at; 0 where the number is exact


@dataclass(frozen=True)
class Judged:
    """What :func:`judge` found."""

    word: str
    answers: list[Answer]
    text: str
    state: str  # a key of STATES
    core: str = ""  # the same, for the records of the core's tests alone


def judge(claim: dict, numbers=None, records=None) -> Judged:
    """Compute the word of a claim from records and from numbers that its chapter computed.

    Args:
        claim: an entry of ``claims.yml``.
        numbers: the chapter's numbers by test id; a test without one is open.
        records: folder of the records; by default those of :func:`sigreg.lab.records.load_record`.

    Raises:
        ValueError: the rule has no test or an ill-formed one, ``numbers`` names none of its tests, or the rule
            allows for fewer looks than it takes.
    """
    tests, numbers = tests_of(claim), dict(numbers or {})
    if not any(test["kind"] == "core" for test in tests):
        raise ValueError(f"{claim['id']}: the rule has no core test")
    from_chapter = {test["id"] for test in tests if not test.get("records")}
    if unknown := sorted(set(numbers) - from_chapter):
        wanted = ", ".join(sorted(from_chapter)) or "none"
        raise ValueError(f"{claim['id']}: numbers for {', '.join(unknown)}, its rule reads from the chapter: {wanted}")
    looks = claim["rule"].get("looks", 0)
    level = 1 - 0.05 / max(looks, 1)
    answers = [_answer(claim["id"], test, numbers, records, level) for test in tests]
    taken = sum(answer.looks for answer in answers)
    if taken > looks:
        raise ValueError(f"{claim['id']}: the rule allows for {looks} looks, its tests take {taken}")
    said = {kind: [answer.word for answer in answers if answer.kind == kind] for kind in ("core", "beyond")}
    if "no" in said["core"]:
        word = "not confirmed"
    elif "open" in said["core"]:
        word = "undecided"
    else:
        word = "confirmed" if set(said["beyond"]) <= {"yes"} else "confirmed in a region"
    text = claim["reason"].format(**{answer.id: answer for answer in answers})
    return Judged(word, answers, text, state_of(claim, records), state_of(claim, records, ("core",)))


def state_of(claim: dict, records=None, kinds=("core", "beyond")) -> str:
    """When the rule was written, seen from the records that its tests of these kinds read: a key of :data:`STATES`."""
    asked, states = {kind: claim["rule"].get(kind) for kind in kinds}, set()
    names = records_of({"rule": asked})
    for name in names:
        try:
            runs = load_record(name, records)["provenance"]["runs"]
        except FileNotFoundError:
            return "missing"
        stored = [run.get("rules", {}).get(claim["id"]) for run in runs]
        states.add("after" if None in stored else "before" if set(stored) == {hash_of(claim)} else "changed")
    worst = [state for state in ("changed", "after", "before") if state in states]
    return worst[0] if worst else "every run"


def rounded(value) -> float:
    """Four significant digits: so many a chapter keeps, so that other machines give the same text.

    >>> rounded(0.123456)
    0.1235
    """
    value = value.item() if isinstance(value, torch.Tensor) else value
    return float(f"{value:.4g}")


def _answer(name, test, numbers, records, level):
    asked = [ask for ask in ASKS if ask in test]
    if len(asked) != 1:
        raise ValueError(f"{name}: test {test['id']!r} must have one of {', '.join(ASKS)}, got {asked}")
    ask, bar = asked[0], test[asked[0]]
    unit = f" {test['unit']}" if test.get("unit") else ""
    if test.get("records"):
        measure = MEASURES.get((name, test["id"]))
        if measure is None:
            raise ValueError(f"{name}: sigreg.lab.verdicts has no measure for its test {test['id']!r}")
        try:
            found = measure(lambda record: load_record(record, records), level)
        except FileNotFoundError:  # a rule may be older than its record
            found = None
    else:
        value = numbers.get(test["id"])
        found = None if value is None else Interval(rounded(value), rounded(value), rounded(value))
    said = {
        "better": f"above 0; fails below {bar:g}{unit}",
        "no_worse": f"at most {bar:g}{unit} worse",
        "above": f"above {bar:g}{unit}",
        "below": f"below {bar:g}{unit}",
    }[ask]
    facts = {"id": test["id"], "kind": test["kind"], "what": test["what"], "bar": said}
    if found is None:
        return Answer(**facts, shown="not measured", seeds="not measured", word="open", looks=0)
    several = found if isinstance(found, list) else [found]
    words = {_word(v, ask, bar) for v in several}
    word = "no" if "no" in words else "open" if "open" in words else "yes"
    worst = max(several, key=lambda v: v.high) if ask == "below" else min(several, key=lambda v: v.low)
    exact = all(v.low == v.high for v in several)
    seeds = _shown(worst.seeds, ask, bar, 1) if isinstance(worst, Points) else ""
    shown = _shown(worst, ask, bar, len(several))
    return Answer(**facts, shown=shown, seeds=seeds, word=word, looks=0 if exact else len(several))


def _word(v, ask, bar):
    """Yes, no or open for one interval: which side of the bar is it on?

    >>> _word(Interval(1.0, 0.4, 1.6), "better", 0.5), _word(Interval(0.1, -0.2, 0.4), "better", 0.5)
    ('yes', 'no')
    """
    if not all(math.isfinite(x) for x in (v.mean, v.low, v.high)):
        return "no"
    if ask == "below":
        return "yes" if v.high < bar else "no" if v.low >= bar else "open"
    holds = {"better": 0.0, "no_worse": -bar, "above": bar}[ask]
    fails = {"better": bar, "no_worse": -bar, "above": bar}[ask]
    return "yes" if v.low > holds else "no" if v.high <= fails else "open"


def _shown(v, ask, bar, count):
    if ask == "below" and v.low == v.high and abs(v.mean) < bar < 1e-4:
        return "0 to rounding"  # the digits of rounding differ between machines
    style = "+.2f" if ask in ("better", "no_worse") else ".2g" if v.low == v.high else ".3g"
    text = f"{v.mean:{style}}" + (f" ({v.low:{style}} to {v.high:{style}})" if v.low != v.high else "")
    return text + (f", the worst of {count}" if count > 1 else "")


# ---------------------------------------------------------------- the box of a chapter


def verdict(name: str, **numbers) -> None:
    """Show the verdict on a claim: the word, at most sixty words of text and a small table.

    Args:
        name: the claim, such as ``"P6"``.
        numbers: what the chapter computed, by the id of the test that asks for it.

    Raises:
        ValueError: there is no such claim, a number is missing, or no test asks for it.
    """
    claim = find_claim(name)
    wanted = {test["id"] for test in tests_of(claim) if not test.get("records")}
    if missing := sorted(wanted - set(numbers)):
        raise ValueError(f"{name}: its rule also reads {', '.join(missing)}: give them as keyword arguments")
    kept = {key: rounded(value) for key, value in numbers.items()}
    text = box(claim, judge(claim, kept))
    if get_ipython() is None:
        print(text)
        return
    stored = {"claim": name, "rule": hash_of(claim), "numbers": kept}
    display({"text/markdown": text, "text/plain": text}, raw=True, metadata={"sigreg_verdict": stored})


def box(claim: dict, judged: Judged) -> str:
    """The Markdown of a verdict's box."""
    head = ("", "measured", "bar", "met?")
    rows = [(a.what if a.kind == "core" else f"*{a.what}*", a.shown, a.bar, a.word) for a in judged.answers]
    opening = f"**Verdict.** **{claim['id']} is {judged.word}.** {judged.text}"
    text = "\n\n".join((opening, table(head, rows), small_print(claim, judged)))
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def small_print(claim: dict, judged: Judged) -> str:
    """How many looks, and when the rule was written."""
    looks = claim["rule"].get("looks", 0)
    covers = ["", "The interval covers with 95%. ", f"Intervals cover with 95%, all {looks} together. "][min(looks, 2)]
    slanted = "Rows in italics mark limits. " if any(a.kind == "beyond" for a in judged.answers) else ""
    when = STATES[judged.state]
    if judged.core == "before" != judged.state:
        when = f"Core: {STATES['before'].lower()} Elsewhere: {when.lower()}"
    return f"{slanted}{covers}{when}"


# ---------------------------------------------------------------- what the tests read from records


@dataclass(frozen=True)
class Points(Interval):
    """A difference of accuracies; ``seeds`` is its 95% interval over the seeds alone."""

    seeds: Interval


def points(a, b, images, level) -> Points:
    r"""A paired difference of accuracies in points, with the scatter of the seeds and of the test images.

    .. math:: \overline{a - b} \pm \sqrt{t^2 s^2 / n + z^2 \sigma^2},
        \qquad \sigma^2 = \frac{\bar a (1 - \bar a) + \bar b (1 - \bar b)}{\text{images}}

    :math:`\sigma` is that of two independent readings. Both networks read the same images and agree on most, so it is
    an upper bound; records keep accuracies and not the images on which two networks differ.

    Args:
        a, b: shares in [0, 1], paired by seed.
        images: how many test images gave each.
        level: the probability that the interval covers.

    >>> v = points([0.90, 0.91], [0.90, 0.91], 10_000, 0.95)
    >>> print(f"{v.mean:+.2f} ({v.low:+.2f} to {v.high:+.2f})")
    +0.00 (-0.81 to +0.81)
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must be paired by seed, got {len(a)} and {len(b)} values")
    gains = [100 * (x - y) for x, y in zip(a, b, strict=True)]
    seeds = over(gains, level)
    p, q = sum(a) / len(a), sum(b) / len(b)
    noise = 100 * stats.norm.ppf((1 + level) / 2) * math.sqrt((p * (1 - p) + q * (1 - q)) / images)
    half = math.hypot(seeds.mean - seeds.low, noise)
    return Points(seeds.mean, seeds.mean - half, seeds.mean + half, over(gains, 0.95))


def over(values, level) -> Interval:
    """Mean and interval over seeds, as floats."""
    v = interval(values, level)
    return Interval(float(v.mean), float(v.low), float(v.high))


def _power(*laws):
    """Share of samples in which 256 slices notice a departure, for 256 codes in 64 dimensions; Wilson's interval."""

    def measure(read, level):
        stored = read("gaussian_regularization_power")["units"]
        units = [e for e in stored if (e["unit"]["N"], e["unit"]["D"]) == (256, 64)]
        drawn, found = sum(e["unit"]["replicates"] for e in units), []
        for law in laws:
            hits = sum(e["result"]["rejections"][law]["mean_256"] for e in units)
            ends = stats.binomtest(hits, drawn).proportion_ci(level, "wilson")
            found.append(Interval(hits / drawn, ends.low, ends.high))
        return found

    return measure


def _sweep(read, name="conditional_bottleneck"):
    found = rows_of(read(name))
    return found[found.part == "sweep"]


def _at_equal_rate(record, baseline):
    """Accuracy of one code of the repaired loss and another, at three equal conditional rates: least, middle, most."""

    def measure(read, level):
        found = _sweep(read, record)
        if baseline not in set(found.method):
            return None
        rates = common_rates(found, ("pairwise", baseline), points=3)

        def curves(method):
            for _, mine in found[found.method == method].sort_values("conditional_rate").groupby("seed"):
                yield np.interp(np.log(rates), np.log(mine.conditional_rate), mine.accuracy_one)

        sides = zip(
            np.transpose([*curves("pairwise")]).tolist(), np.transpose([*curves(baseline)]).tolist(), strict=True
        )
        return [points(a, b, TEST_IMAGES[True], level) for a, b in sides]

    return measure


def _rises(read, level):
    """Relevance of the repaired loss at one weight of the rate less that at the next larger one."""
    found = _sweep(read)
    by_weight = [by_seed(found, "relevance", method="pairwise", beta=b) for b in sorted(set(found.beta) - {0.0})]
    return [over((a - b).tolist(), level) for a, b in pairwise(by_weight)]


def _short_of_bound(read, level):
    """By how much relevance stays below min(I(X;W), H(Y)) of ten equal classes, for each weight."""
    found = _sweep(read)
    found = found[found.method == "pairwise"]
    lost = found.rate.clip(upper=math.log(10)) - found.relevance
    return [over(values.tolist(), level) for _, values in lost.groupby(found.beta)]


def _runs_away(read, level):
    found = _sweep(read)
    return over(
        paired(found, *({"method": m, "beta": 0.01} for m in ("minibatch", "pairwise")), "conditional_rate"), level
    )


def _long(method, baseline, record="semi_supervised_long", least=8):
    """A paired difference in points after long training with few labels; None where fewer draws were finished."""
    gap = _more_right(record, {"method": method}, {"method": baseline})

    def measure(read, level):
        draws = {entry["unit"]["seed"] for entry in read(record)["units"]}
        return gap(read, level) if len(draws) >= least else None

    return measure


def _few_labels(record, method, baseline):
    """A paired difference at 100 labels, in points."""

    def measure(read, level):
        runs = few_label_runs(read(record))
        chosen = {"labels": 100, "stage": "joint"}
        return _paired_points(runs, {**chosen, **method}, {**chosen, **baseline}, level, TEST_IMAGES[True])

    return measure


def _paired_points(found, method, baseline, level, images, quantity="accuracy"):
    a, b = (by_seed(found, quantity, **where) for where in (method, baseline))
    seeds = sorted(set(a.index) & set(b.index))
    return points(a[seeds].tolist(), b[seeds].tolist(), images, level)


def _without_labels(record, baseline, quantity="accuracy"):
    """SIGReg's features less another method's, in points."""

    def measure(read, level):
        found = rows_of(read(record))
        where = {"part": "methods"} if record == "self_supervised_sweeps" else {}
        sides = ({**where, "method": method} for method in ("sigreg", baseline))
        return _paired_points(found, *sides, level, TEST_IMAGES[bool(found.whole.all())], quantity)

    return measure


def _more_right(record, method, baseline, images=TEST_IMAGES[True]):
    """A paired difference in points, from which images were guessed right."""

    def measure(read, level):
        found = rows_of(read(record))
        sides = [[unpack(text, images) for text in by_seed(found, "right", **where)] for where in (method, baseline)]
        gap = gap_of_guesses(*sides)
        v, seeds = interval_of(gap, level), over(100 * (np.mean(sides[0], 1) - np.mean(sides[1], 1)), 0.95)
        return Points(v.mean, float(v.low), float(v.high), seeds)

    return measure


def _equal_trials(*baselines):
    """SIGReg's features less those of others on the same network, each tuned by equal trials, in points."""
    gaps = [_more_right("without_labels", {"method": "sigreg"}, {"method": baseline}) for baseline in baselines]
    return lambda read, level: [gap(read, level) for gap in gaps]


def _at_rest(truth, guess, alive):
    """R-squared of a guess over all directions of a network at all weights and widths, over seeds."""

    def measure(read, level):
        found = []
        for entry in read("partial_collapse")["units"]:
            a, b, v = (
                np.concatenate([cell[key] for cell in entry["result"]["cells"]]) for key in (truth, guess, "variance")
            )
            kept = v > 0.05 if alive else slice(None)
            found.append(1 - ((a - b)[kept] ** 2).sum() / ((a - a[kept].mean())[kept] ** 2).sum())
        return over(found, level)

    return measure


def _live_missed(read, level):
    cells = [entry["result"]["cells"] for entry in read("partial_collapse")["units"]]
    return over(
        [np.mean([abs(c["alive"] - c["alive_expected"]) / c["width"] for c in group]) for group in cells], level
    )


def _enforced(read, level):
    """SIGReg of held-out views less that of the last training batches."""
    runs = [e["result"] for e in read("self_supervised")["units"] if e["unit"]["method"] == "sigreg"]
    return over([r["view_sigreg"] - r["curve"]["sigreg"][-1] for r in runs], level)


def _rate_ranks(read, level):
    """Spearman's correlation of the rate with neighbours' accuracy over settings; the interval by resampling."""
    found = rows_of(read("self_supervised_sweeps"))
    x, y = (found[found.part == "predicts"][key].to_numpy(float) for key in ("rate", "knn"))
    draws = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
    drawn = [stats.spearmanr(x[d], y[d]).statistic for d in draws]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(stats.spearmanr(x, y).statistic), float(low), float(high))


def _collapse(read, level):
    found = rows_of(read("self_supervised_sweeps"))
    return over(by_seed(found, "code_variance", part="weight", weight=0.0).tolist(), level)


def _features(method):
    def measure(read, level):
        found = rows_of(read("vicreg_information"))
        sides = ({"part": "final", "method": name} for name in (method, "vicreg"))
        return _paired_points(found, *sides, level, TEST_IMAGES[True])

    return measure


def _above_floor(read, level):
    """The log-determinant's claim less InfoNCE's floor, for every method, in nats."""
    found = rows_of(read("vicreg_information"))
    found = found[found.part == "final"]
    excess = found["steps.logdet"] - found["steps.contrastive"]
    return [over(values.tolist(), level) for _, values in excess.groupby(found.method, sort=False)]


def _cells(quantity, *names, record="information_maximization"):
    """The last value of a quantity in cells of the cube, or of the methods; None where a cell was not run."""

    def measure(read, level):
        found = rows_of(read(record))
        if not set(names) <= set(found.cell):
            return None
        return [over(by_seed(found, quantity, cell=name).str[-1].tolist(), level) for name in names]

    return measure


def _rank_lost(read, level):
    found = rows_of(read("information_maximization"))
    a, b = (by_seed(found, "rank", cell=cell).str[-1] for cell in ("stop-gradient + predictor", "regulariser"))
    return over((a - b).tolist(), level)


def _arms(question, *arms):
    return [{"question": question, "arm": arm} for arm in arms]


METHODS, KNOWN = "information_maximization_methods", "self_supervised_known"
FAMILY = "vicreg_information_family"
MEASURES = {
    ("P6", "shared"): _power("wrong scale", "heavy tails"),
    ("P6", "others"): _power("anisotropy", "collapsed direction", "cube", "two clusters"),
    ("P7", "plain"): _runs_away,
    ("P7", "labels"): _long("consistency+rate", "consistency"),
    ("P8", "untrained"): _without_labels("self_supervised", "random"),
    ("P8", "ranks"): _rate_ranks,
    ("P8", "enforced"): _enforced,
    ("P8", "gain"): _equal_trials("untrained"),
    ("P8", "labels"): _equal_trials("supervised"),
    ("P9", "consistency"): _long("consistency+sigreg", "consistency"),
    ("P9", "thousand"): _long("consistency+sigreg", "consistency", "semi_supervised_long_thousand", least=4),
    ("P9", "start"): _few_labels("semi_supervised_pretrained", {"name": "consistency+sigreg"}, {"name": "consistency"}),
    ("P9", "alone"): _few_labels("semi_supervised", {"name": "sigreg", "nats": 0.1}, {"name": "labels"}),
    ("P9", "spread"): _few_labels("semi_supervised_pretrained", {"name": "neighbours+sigreg"}, {"name": "neighbours"}),
    ("P9", "untrained"): _without_labels("self_supervised", "random"),
    ("P9", "whole"): _without_labels("self_supervised", "vicreg"),
    ("P9", "neighbours"): _without_labels("self_supervised", "vicreg", "knn"),
    ("P9", "rivals"): _equal_trials("vicreg", "barlow_twins", "simclr", "byol"),
    ("P10", "rises"): _rises,
    ("P10", "bound"): _short_of_bound,
    ("P11", "large"): _at_equal_rate("conditional_bottleneck_batch", "variational_ceb"),
    ("P11", "moments"): _at_equal_rate("conditional_bottleneck_batch", "moments"),
    ("P11", "ceb"): _at_equal_rate("conditional_bottleneck", "variational_ceb"),
    ("P11", "vib"): _at_equal_rate("conditional_bottleneck", "vib"),
    ("P12", "collapse"): _collapse,
    ("P12", "price"): _at_rest("unshared", "price", alive=True),
    ("P12", "spectrum"): _at_rest("variance", "expected", alive=False),
    ("P12", "live"): _live_missed,
    ("V2", "floor"): _above_floor,
    ("V3", "logdet"): _more_right(FAMILY, {"method": "logdet"}, {"method": "vicreg"}),
    ("V3", "pairdist"): _more_right(FAMILY, {"method": "pairdist"}, {"method": "vicreg"}),
    ("V3", "once"): _features("logdet"),
    ("V3", "once_pairs"): _features("pairdist"),
    ("S1", "loss"): _cells("spread", "bound, at once", "bound, by turns", record=METHODS),
    ("S1", "ablated"): _cells("spread", "joint term, at once", record=METHODS),
    ("S2", "two"): _cells("spread", "joint term, by turns", record=METHODS),
    ("S2", "lives"): _cells("spread", "stop-gradient + predictor"),
    ("S2", "alone"): _cells("spread", "stop-gradient"),
    ("S3", "lives"): _cells("spread", "regulariser", "predictor + regulariser"),
    ("S3", "informed"): _cells("information", "regulariser", "predictor + regulariser"),
    ("S4", "lives"): _cells("spread", "stop-gradient + predictor", "regulariser"),
    ("S4", "directions"): _rank_lost,
    ("S5", "run"): _cells("spread", "BYOL", "MoCo", "SimCLR", "Barlow Twins", "VICReg", record=METHODS),
    ("K1", "gain"): _more_right(KNOWN, *_arms("content", "sketched", "inputs")),
    ("K2", "gain"): _more_right(KNOWN, *_arms("nuisance", "sketched", "inputs")),
    ("K3", "not_less"): _more_right(KNOWN, *_arms("twins", "slice-free", "sketched")),
    ("K3", "not_more"): _more_right(KNOWN, *_arms("twins", "sketched", "slice-free")),
}
