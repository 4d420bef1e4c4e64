r"""The study of ``semi_supervised_long`` with a thousand labels in place of a hundred, on fewer draws.

Everything else is the same, the number of steps and the settings that trials with a hundred labels prefer too.

Derived in: Chapter 5, section 5.10.
"""

from sigreg.lab.experiments import semi_supervised_long as study

VERSION = study.VERSION
SEEDS = {"default": 4, "full": 15}
CHECK = study.CHECK
LABELS = 1000

tolerance, run_unit, summary = study.tolerance, study.run_unit, study.summary


def units(preset, seeds):
    """As with a hundred labels."""
    return study.units(preset, seeds, LABELS)
