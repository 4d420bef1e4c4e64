"""Run every check, go on after a failure, and end with one list: what passed, failed or was skipped, in how long.

    python book/_tools/check.py               what `make test` runs
    python book/_tools/check.py processors    every chapter, rerun as other processors and two threads would run it

A step that cannot run on this machine says why in one line and exits with 77, which is no failure. Without the built
book the steps that look at it are skipped: the build has failed already.
"""

import subprocess
import sys
import time

TOOL, PAGES, SKIPPED = "book/_tools/", "_build/html", 77
MAKE = ["make", "--no-print-directory"]

CHECKS = {
    "book": [*MAKE, "book"],
    "style": [sys.executable, "-m", "ruff", "check", "sigreg", "tests", "book", "notebooks", "benchmarks"],
    "types": [sys.executable, "-m", "mypy"],
    "stamp": [sys.executable, TOOL + "stamp.py", "check"],
    "claims": [sys.executable, TOOL + "claims.py", "check"],
    "pairs": [sys.executable, TOOL + "pairs.py", "check"],
    "printed": [sys.executable, TOOL + "printed.py", PAGES],
    "site": [sys.executable, TOOL + "site.py", PAGES],
    "browser": [sys.executable, TOOL + "browser.py", PAGES],
    "measure": [sys.executable, TOOL + "measure.py", PAGES],
    "records": [*MAKE, "records"],
    "nbval": [*MAKE, "nbval"],
    "unit": [*MAKE, "unit"],
}

# What PyTorch, oneDNN and MKL may use of the processor. One that has less than a line allows runs what it has.
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
PROCESSORS = {
    "plain": ("default", "SSE41", "SSE4_2"),
    "avx2": ("avx2", "AVX2", "AVX2"),
    "avx512": ("avx512", "AVX512_CORE", "AVX512"),
}


def processors():
    """The steps that rerun the chapters, `{name: command}`."""
    steps = {}
    for name, levels in PROCESSORS.items():
        for threads in (1, 2):
            sets = ["env", *map("=".join, zip(SWITCHES, levels, strict=True))]
            steps[f"{name}, {threads} threads"] = [*sets, *MAKE, "nbval", f"THREADS={threads}", f"JOBS={3 - threads}"]
    return steps


def run(steps):
    """Run `{name: command}` in turn; return `{name: (outcome, seconds)}`."""
    results = {}
    for name, command in steps.items():
        print(f"== {name}: {' '.join(command).replace(sys.executable, 'python')}", flush=True)
        start = time.monotonic()
        if PAGES in command and results.get("book", ["passed"])[0] == "failed":
            print("the book was not built")
            outcome = "skipped"
        else:
            status = subprocess.run(command).returncode
            outcome = {0: "passed", SKIPPED: "skipped"}.get(status, "failed")
        results[name] = outcome, time.monotonic() - start
    return results


def summary(results):
    """The closing lines: one for each step, and the counts."""
    lines = [f"{outcome:8}{seconds:6.0f} s  {name}" for name, (outcome, seconds) in results.items()]
    outcomes = [outcome for outcome, _ in results.values()]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    return ["", *lines, counts]


def main():
    results = run(processors() if sys.argv[1:] == ["processors"] else CHECKS)
    print(*summary(results), sep="\n")
    return any(outcome == "failed" for outcome, _ in results.values())


if __name__ == "__main__":
    sys.exit(main())
