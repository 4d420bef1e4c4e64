"""The landing page: what the book found, each with a number and a picture drawn from a stored record at every build.

    :::{finding} shadows                 a card; the text of the directive is its sentence
    :::{glance}                          the claims, by what stands behind them and what came out
    :::{bibtex}                          the book as a BibTeX entry, from CITATION.cff

A sentence that its record no longer bears out stops the build: each function below says what must hold.
"""

import importlib.util
import re
from functools import cache
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive

from sigreg.lab.figures import interval
from sigreg.lab.reading import paired, rejection_rates
from sigreg.lab.records import load_record, table
from sigreg.lab.verdicts import find_claim, judge

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = {"derivation": "derived", "check": "checked", "experiment": "run"}


def require(holds, what):
    if not holds:
        raise ValueError(f"a finding of the first page no longer holds: {what}")


# Pictures: 200 by 84, drawn in the colours of the theme --------------------------------------------------------


def picture(parts, alt):
    return f'<svg class="thumb" viewBox="0 0 200 84" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'


def line(points, tone, extra=""):
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="line tone-{tone}" {extra} d="{path}"/>'


def said(x, y, text, tone, anchor="start"):
    return f'<text class="tone-{tone}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def dot(x, y, tone):
    return f'<circle class="tone-{tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


# Findings: the number, what it counts, the picture -----------------------------------------------------------


def shadows():
    """How often SIGReg notices a cube, by dimension."""
    rate = rejection_rates(load_record("gaussian_regularization_power")).rate
    cube = rate[256].xs(("cube", "mean_64"), level=("law", "test"))
    tails = rate[256].xs(("heavy tails", "mean_64"), level=("law", "test"))
    require(cube[2] > 0.5 and cube[64] < 0.15 and tails[64] > 0.9, "SIGReg loses the cube and keeps heavy tails")
    at = {dim: 14 + 150 * k / (len(cube) - 1) for k, dim in enumerate(cube.index)}
    parts = [
        line([(14, 66), (164, 66)], "grey", 'stroke-dasharray="2 3"'),
        line([(at[d], 70 - 60 * r) for d, r in tails.items()], "grey"),
        line([(at[d], 70 - 60 * r) for d, r in cube.items()], "blue"),
        said(168, 68, "cube", "blue"),
        said(168, 15, "tails", "grey"),
        *(said(at[d], 82, f"D = {d}" if d == 2 else str(d), "grey", "middle") for d in (2, 32, 256)),
    ]
    alt = "Share of samples that SIGReg notices against dimension: it falls for a cube and rises for heavy tails"
    return f"{cube[64]:.0%}", "of cubes noticed, D = 64; chance: 5%", picture(parts, alt)


def stop():
    """Which of eight combinations of stop-gradient, predictor and regularizer collapse."""
    found = table(load_record("information_maximization")).query("cell != 'untrained'")
    curves = {
        cell: [sum(step) / len(step) for step in zip(*rows.spread, strict=True)] for cell, rows in found.groupby("cell")
    }
    gone = {cell for cell, curve in curves.items() if curve[-1] < 0.5}
    require(gone == {"prediction alone", "stop-gradient", "predictor"}, f"collapsed cells: {sorted(gone)}")
    parts = []
    for cell, curve in curves.items():
        points = [(14 + 150 * k / (len(curve) - 1), 74 - 60 * value) for k, value in enumerate(curve)]
        parts.append(line(points, "red" if cell in gone else "green"))
    parts += [said(168, 18, "alive", "green"), said(168, 74, "gone", "red")]
    alt = "Spread of the codes in training: three of eight combinations fall to zero, five stay near one"
    return f"{len(gone)} of {len(curves)}", "ways to train collapse", picture(parts, alt)


def features():
    """What SIGReg teaches without labels, beside no training, VICReg and labels."""
    found = table(load_record("self_supervised"))
    gains = {
        name: interval([100 * d for d in paired(found, {"method": method}, {"method": "random"})])
        for name, method in (("SIGReg", "sigreg"), ("VICReg", "vicreg"), ("labels", "supervised"))
    }
    require(gains["SIGReg"].low > 0.5 and gains["labels"].mean > gains["SIGReg"].mean, "SIGReg teaches features")
    parts = [line([(60, 8), (60, 76)], "grey", 'stroke-dasharray="2 3"')]
    for row, (name, band) in enumerate(gains.items()):
        y, tone = 20 + 24 * row, "blue" if name == "SIGReg" else "grey"
        parts += [line([(60 + 36 * band.low, y), (60 + 36 * band.high, y)], tone), dot(60 + 36 * band.mean, y, tone)]
        parts.append(said(54, y + 4, name, tone, "end"))
    alt = "Gain in accuracy over an untrained network, with intervals: SIGReg, VICReg and training with labels"
    return f"+{gains['SIGReg'].mean:.1f} points", "over untrained features, no labels", picture(parts, alt)


def labels():
    """What SIGReg adds beside consistency, with 100 labels, from a good start: the interval of the claims page."""
    answer = next(a for a in judge(find_claim("P9")).answers if a.id == "consistency")
    mean, low, high = (float(v) for v in re.findall(r"[-+]?\d+\.\d+", answer.shown)[:3])
    require(answer.word == "open" and low < 0.5 < high, f"the help beside few labels is open: {answer.shown}")

    def place(points):
        return 100 + 18 * max(-5, min(5, points))

    parts = [
        f'<rect class="tone-grey faint" x="{place(-0.5)}" y="14" width="{place(0.5) - place(-0.5)}" height="48"/>',
        line([(100, 10), (100, 66)], "grey", 'stroke-dasharray="2 3"'),
        line([(place(low), 38), (place(high), 38)], "violet"),
        dot(place(mean), 38, "violet"),
        *(said(place(v), 80, f"{v:+d}".replace("-", "\u2212") if v else "0", "grey", "middle") for v in (-4, 0, 4)),
    ]
    alt = "The gain from SIGReg with 100 labels: its interval has both a loss and a gain of half a point inside"
    number = f"{mean:+.1f}".replace("-", "\u2212")
    ends = " to ".join(f"{v:+.1f}".replace("-", "\u2212") for v in (low, high))
    return f"{number} points", f"({ends}) with 100 labels", picture(parts, alt)


FINDINGS = {"shadows": shadows, "stop": stop, "features": features, "labels": labels}


class Finding(Directive):
    required_arguments = 1
    has_content = True

    def run(self):
        number, unit, drawn = FINDINGS[self.arguments[0]]()
        top = f'{drawn}<p class="number"><strong>{escape(number)}</strong> {escape(unit)}</p>'
        card = nodes.container(classes=["finding"])
        card += nodes.raw("", top, format="html")
        self.state.nested_parse(self.content, self.content_offset, card)
        return [card]


# All claims at a glance ----------------------------------------------------------------------------------------


@cache
def claims_tool():
    spec = importlib.util.spec_from_file_location("book_claims", ROOT / "book" / "_tools" / "claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def glance():
    """A tile for each claim, and a line that says what the colours mean and how many there are."""
    tool = claims_tool()
    data, chapters = tool.load(ROOT)
    listed = sorted(data["claims"], key=lambda claim: tool.IDS.index(claim["id"]))
    words = {claim["id"]: tool.judged(claim, chapters, ROOT / "book/_records").word for claim in listed}
    tiles = []
    for claim in listed:
        name, word = claim["id"], words[claim["id"]]
        marks = "".join(f'<i class="{"yes" if claim.get(part) else "no"}"></i>' for part in ANSWERS)
        has = ", ".join(text for part, text in ANSWERS.items() if claim.get(part))
        tiles.append(
            f'<a class="tile {word.replace(" ", "-")}" href="claims.html#claim-{name.lower()}"><b>{name}</b>'
            f'<span class="marks" aria-hidden="true">{marks}</span><span class="hear">: {has}; {word}</span></a>'
        )
    said = list(words.values())
    key = " ".join(
        f'<span class="chip {word.replace(" ", "-")}">{said.count(word)} {word}</span>'
        for word in tool.WORDS
        if word in said
    )
    return f'<div class="glance">{"".join(tiles)}</div><p class="glance-key">{key}</p>'


class Glance(Directive):
    def run(self):
        return [nodes.raw("", glance(), format="html")]


# How to cite ------------------------------------------------------------------------------------------------------


def bibtex():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    title, url = cited["title"], cited["url"]
    year = str(cited["date-released"])[:4]
    author = " and ".join("{" + person["name"] + "}" for person in cited["authors"])
    return (
        f"@misc{{sigreg_book_{year},\n  title = {{{title}}},\n  author = {{{author}}},\n  year = {{{year}}},\n"
        f"  version = {{{cited['version']}}},\n  howpublished = {{\\url{{{url}}}}},\n}}"
    )


class Bibtex(Directive):
    def run(self):
        return [nodes.literal_block(bibtex(), bibtex(), language="bibtex", classes=["bibtex"])]


def setup(app):
    app.add_directive("finding", Finding)
    app.add_directive("glance", Glance)
    app.add_directive("bibtex", Bibtex)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
