"""The live figures: their arithmetic is the package's, and what they show was computed by it."""

import importlib.util
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "book" / "_static" / "live"
spec = importlib.util.spec_from_file_location("book_live", ROOT / "book" / "_tools" / "live.py")
live = importlib.util.module_from_spec(spec)
spec.loader.exec_module(live)
spec = importlib.util.spec_from_file_location("book_browser", ROOT / "book" / "_tools" / "browser.py")
browser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(browser)

COMPARE = """cases => cases.map(c => {
  const grid = sigreg.makeGrid(c.knots, c.t_max), z = Float64Array.from(c.z);
  const directions = Float64Array.from(c.directions), gradient = new Float64Array(z.length);
  const value = sigreg.slicedSigreg(z, directions, c.dim, { grid, gradient });
  const furthest = Math.max(...gradient.map((g, i) => Math.abs(g - c.gradient[i])));
  const bumped = z.slice(), h = 1e-5, i = z.length - 1;
  bumped[i] = z[i] + h;
  const up = sigreg.slicedSigreg(bumped, directions, c.dim, { grid });
  bumped[i] = z[i] - h;
  const down = sigreg.slicedSigreg(bumped, directions, c.dim, { grid });
  return { value: Math.abs(value - c.value) / c.value, gradient: furthest,
    radial: Math.abs(sigreg.radialSigreg(z, c.dim, grid) - c.radial) / c.radial,
    null: Math.abs(sigreg.nullMean(grid) - c.null), differences: Math.abs((up - down) / (2 * h) - gradient[i]) };
})"""

# Of each law: variance and mean of all coordinates, the mean kurtosis; the same seed twice gives the same cloud.
LAWS = """() => Object.keys(sigreg.LAWS).map(law => {
  const draw = () => sigreg.cloud(law, 4000, 4, sigreg.makeRandom(3)), z = draw(), again = draw();
  return { law, variance: z.reduce((s, v) => s + v * v, 0) / z.length, mean: z.reduce((s, v) => s + v, 0) / z.length,
    kurtosis: sigreg.kurtosis(z, 4), same: z.every((v, i) => v === again[i]) };
})"""


@pytest.fixture(scope="module")
def script():
    """A function that evaluates JavaScript beside the script of the pages: in node, or else in Chromium."""
    if node := shutil.which("node"):

        def run(function, *arguments):
            given = ", ".join(map(json.dumps, arguments))
            load = f"const sigreg = require({json.dumps(str(LIVE / 'sigreg.js'))});"
            code = f"{load} console.log(JSON.stringify(({function})({given})))"
            done = subprocess.run([node, "-"], input=code, capture_output=True, text=True, check=True)
            return json.loads(done.stdout)

        yield run
    elif (command := browser.chromium()) and importlib.util.find_spec("playwright"):
        with browser.opened(command) as chromium:
            tab = chromium.new_page()
            tab.add_script_tag(path=LIVE / "sigreg.js")
            yield lambda function, *arguments: tab.evaluate(f"given => ({function})(...given)", list(arguments))
    else:
        pytest.skip("neither node nor Chromium on this machine")


@pytest.fixture(scope="module")
def cases():
    return json.loads(live.CASES.read_text())


@pytest.mark.parametrize("what", ["value", "gradient", "radial", "null"])
def test_the_script_agrees_with_the_package_to_rounding(script, cases, what):
    assert max(found[what] for found in script(COMPARE, cases)) < 1e-12


def test_its_gradient_is_that_of_finite_differences(script, cases):
    assert max(found["differences"] for found in script(COMPARE, cases)) < 1e-8


def test_the_clouds_are_the_laws_that_they_are_named_after(script):
    found = {row["law"]: row for row in script(LAWS)}
    assert all(row["same"] and abs(row["mean"]) < 0.05 for row in found.values())
    assert found.pop("all collapsed")["variance"] < 0.01
    assert found.pop("one direction lost")["variance"] == pytest.approx(0.75, abs=0.02)
    assert [row["variance"] for row in found.values()] == pytest.approx([1] * len(found), abs=0.06)
    kurtosis = {law: row["kurtosis"] for law, row in found.items()}
    assert kurtosis["a Gaussian"] == pytest.approx(3, abs=0.15) and kurtosis["a cube"] == pytest.approx(1.8, abs=0.05)
    assert kurtosis["heavy tails"] > 4 > 2.5 > kurtosis["a sphere"]  # on the sphere in four dimensions: 2


def test_what_is_stored_is_what_the_package_computes():
    cheap = {path: make for path, make in live.STORED.items() if make not in (live.curve, live.rates)}
    assert len(cheap) > 3 and live.problems(cheap) == []


def test_the_stored_curve_is_that_of_the_solver():
    kept = json.loads((LIVE / "fig-information-curve.json").read_text())
    some = kept["codes"][8::11]
    fresh = live.curve(live.BETAS[8::11])
    mean = [sum(axis) / len(axis) for axis in zip(*kept["spiral"], strict=True)]
    for code, again in zip(some, fresh["codes"], strict=True):
        assert [code["rate"], code["relevance"]] == pytest.approx([again["rate"], again["relevance"]], abs=2e-3)
        assert sum(word[2] for word in code["words"]) == pytest.approx(1, abs=1e-3)
        centre = [sum(word[k] * word[2] for word in code["words"]) for k in (0, 1)]
        assert centre == pytest.approx(mean, abs=1e-3)  # words are centroids: their mean is that of the forecasts
    assert kept["total"] == fresh["total"] and len(kept["codes"]) > 20


def test_stored_rates_are_those_of_the_estimators():
    kept = json.loads((LIVE / "fig-estimates.json").read_text())
    for batch, dim, sigma in ((8, 4, 0.1), (64, 16, 0.3)):
        row = kept["rates"][str(sigma)][str(dim)]
        stored = [row[name][kept["batches"].index(batch)] for name in ("own", "left_out", "defensive", "closed")]
        assert stored == pytest.approx(live.rate_estimates(batch, dim, sigma), rel=2e-3)
    for sigma, by_dim in kept["rates"].items():
        for dim, row in by_dim.items():
            truth = int(dim) / 2 * math.log1p(float(sigma) ** -2)
            for batch, own, left_out in zip(kept["batches"], row["own"], row["left_out"], strict=True):
                assert own < min(1.01 * truth, math.log(batch) + 1e-3) and left_out > 0.98 * truth  # a sandwich


@pytest.fixture
def moved():
    """The page of the rates in Chromium: its figure, its grid and the scripts."""
    if not ((command := browser.chromium()) and importlib.util.find_spec("playwright")):
        pytest.skip("no Chromium on this machine")
    grid = (LIVE / "fig-estimates.json").read_text()
    still = "<figure id='fig-estimates'><img alt='still'><figcaption class='caption-text'>Still.</figcaption></figure>"
    with browser.opened(command) as chromium:
        tab = chromium.new_page(viewport={"width": 390, "height": 800})
        tab.set_content(f"{still}<script type='application/json' id='grid-fig-estimates'>{grid}</script>")
        for name in ("explore.js", "grids.js"):
            tab.add_script_tag(path=LIVE / name)
        tab.wait_for_selector(".live-says")
        yield tab, json.loads(grid)


def test_the_rates_that_are_shown_are_the_stored_ones(moved):
    tab, grid = moved
    row = grid["rates"]["0.1"]["2"]
    assert f"truth is {math.log1p(100):.2f} nats" in tab.inner_text(".live-says")
    for name in ("own", "left_out", "defensive"):
        assert f" {row[name][3]:.3g}" in tab.inner_text(".live-says")  # at B = 64
    heights = re.findall(r"[ML][\d.]+ ([\d.]+)", tab.get_attribute("path.line.tone-blue", "d"))
    expected = [280 - 270 * value / (2.2 * math.log1p(100)) for value in row["own"]]
    assert [float(height) for height in heights] == pytest.approx(expected, abs=0.06)
    tab.focus("input[aria-label='Batch B']")
    tab.keyboard.press("ArrowRight")
    assert f" {row['own'][4]:.3g}" in tab.inner_text(".live-says")  # at B = 128
    tab.check("input[value='dimension D']", force=True)
    assert "against the dimension" in tab.get_attribute(".live svg", "aria-label")
    assert grid["source"] in tab.inner_text(".live-source")
    assert "NaN" not in tab.inner_html(".live")


def test_a_number_that_was_changed_is_found(tmp_path):
    kept = json.loads(live.CASES.read_text())
    kept[1]["gradient"][3] += 1e-3
    (tmp_path / "cases.json").write_text(json.dumps(kept))
    assert live.problems({tmp_path / "cases.json": live.cases}) != []
    assert live.difference([1, 2], [1]) == live.difference({"a": 1}, {"b": 1}) == float("inf")
