"""Whether the text that a cell printed is the text that is stored: words equal, numbers near.

The same code gives other last digits on another processor, so a stored number is right if the new one lies within

* one unit of the last digit printed, where it has a decimal point, an exponent or a % sign: what a value on the edge
  of rounding can move by (from 9.99e-4 to 1.00e-3, or from 3.99 to 4, is such a step);
* 1e-12, whatever is printed: "differ by 1e-16" and "differ by 0" say the same;
* what the cell's tags allow, for all of its numbers: `rtol=0.05`, relative to the larger of the two; `atol=2`.

Other whole numbers are counts, and must be equal. So must all else: words, their order, the parts of a name or of a
version (`P9`, `2.15.0`), `nan`. How many blanks separate them does not matter, since columns follow the numbers.
"""

import re
from itertools import zip_longest

FLOOR = 1e-12
NUMBER = re.compile(
    r"""(?<![\w.])                                    # not within a name, or within a version
    (?P<value>[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?P<fraction>\.\d+)?(?:e(?P<power>[-+]?\d+))?)
    (?!\d|\.\d)(?P<percent>(?=\s?\\?%))?""",
    re.VERBOSE | re.IGNORECASE,
)


def allowed(tags):
    """What a cell's tags allow: `{"rtol": ..., "atol": ...}`."""
    found = dict.fromkeys(("rtol", "atol"), 0.0)
    for tag in tags:
        name, equals, value = tag.partition("=")
        if equals and name in found:
            found[name] = float(value)
    return found


def difference(stored, fresh, rtol=0.0, atol=0.0):
    """The first place where `fresh` does not say what `stored` says, in words; empty if there is none."""
    for (was, number), (now, other) in zip_longest(_pieces(stored), _pieces(fresh), fillvalue=("", None)):
        if was != now:
            return f"the text {was[:80]!r} is stored, and {now[:80]!r} came"
        if (number is None) != (other is None):
            found, place = (number, "is stored") if number else (other, "came")
            return f"only one of the two has a number here: {found['value']} {place}, after {was[-40:]!r}"
        if number is None:
            continue
        (a, unit), (b, other_unit) = _read(number), _read(other)
        finer, coarser = sorted((unit, other_unit))
        step = min(coarser, 10 * finer) if finer else coarser * bool(a and b)
        room = max(step, FLOOR, atol, rtol * max(abs(a), abs(b)))
        if abs(a - b) > room * (1 + 1e-9):
            return f"{number['value']} is stored, and {other['value']} came, after {was[-40:]!r}: {room:.2g} is allowed"
    return ""


def _pieces(text):
    """Yield the stretches of text, blanks made alike, each with the number after it; the last has none."""
    text, end = text.replace("\u2212", "-"), 0
    for match in NUMBER.finditer(text):
        yield _squeezed(text[end : match.start()]), match
        end = match.end()
    yield _squeezed(text[end:]), None


def _squeezed(text):
    return re.sub(r"[ \t]+", " ", text).strip(" ")


def _read(match):
    """The value of a number, and one unit of its last digit (0 for a count)."""
    digits = len(match["fraction"] or ".") - 1
    rounded = match["fraction"] or match["power"] or match["percent"] is not None
    return float(match["value"].replace(",", "")), 10.0 ** (int(match["power"] or 0) - digits) if rounded else 0.0
