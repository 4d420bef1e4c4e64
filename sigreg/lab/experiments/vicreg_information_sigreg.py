r"""Sketched SIGReg of the comparison of VICReg and its relatives, again at the weight that its stored tuning prefers.

The weights of :mod:`sigreg.lab.experiments.vicreg_information` were fixed after a first round of tuning. Tuning as it
is stored, with a probe that stops a little earlier, prefers the same weight for every method but this one, where two
weights differ by a single image of 10 000. So that the rule is the same for all, this method runs again at the weight
that the stored tuning prefers; everything else is as there.

Derived in: Chapter 7, section 7.5.
"""

from sigreg.lab.experiments import vicreg_information as comparison

SEEDS = comparison.SEEDS

WEIGHTS = {"sigreg": 10.0}


def units(preset, seeds):
    """The final runs of the methods in :data:`WEIGHTS`, with these weights."""
    return [
        {**unit, "weight": WEIGHTS[unit["method"]]}
        for unit in comparison.units(preset, seeds)
        if unit["part"] == "final" and unit["method"] in WEIGHTS
    ]


def run_unit(unit, device):
    """As in the comparison."""
    return comparison.run_unit(unit, device)


def summary(record):
    """The accuracy in plain words."""
    values = [result["accuracy"] for method in WEIGHTS for result in comparison.results(record, method)]
    return f"SIGReg, sketched, weight {WEIGHTS['sigreg']:g}: linear probe {100 * sum(values) / len(values):.2f}%"


def joined(record, again):
    """The comparison's record with the methods in :data:`WEIGHTS` taken from their own: all weights by one rule."""
    kept = [e for e in record["units"] if e["unit"]["part"] != "final" or e["unit"]["method"] not in WEIGHTS]
    return {**record, "units": kept + again["units"]}
