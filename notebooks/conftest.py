"""nbval reruns the chapters; here it learns to compare numbers as numbers (book/_tools/compare.py says how)."""

import sys
from pathlib import Path

import nbval.plugin

sys.path.append(str(Path(__file__).resolve().parents[1] / "book/_tools"))  # at the end: a module there is called site
import compare


class Printed(str):
    """A stored text, equal to any that says the same."""

    cell = None
    __hash__ = str.__hash__

    def __eq__(self, fresh):
        return isinstance(fresh, str) and not self.cell.difference(self, fresh)

    def __ne__(self, fresh):
        return not self == fresh


class Cell(nbval.plugin.IPyNbCell):
    def difference(self, stored, fresh):
        return compare.difference(stored, fresh, **compare.allowed(self.cell.metadata.get("tags", [])))

    def sanitize(self, text):
        text = super().sanitize(text)
        if not isinstance(text, str):
            return text
        printed = Printed(text)
        printed.cell = self
        return printed

    def format_output_compare(self, key, left, right):
        super().format_output_compare(key, str(left), str(right))
        self.comparison_traceback.insert(0, f"{key}: {self.difference(left, right)}")


def pytest_itemcollected(item):
    if type(item) is nbval.plugin.IPyNbCell:
        item.__class__ = Cell
        item.parent.skip_compare += ("image/svg+xml",)  # as it skips image/png: what a figure shows is also said in words
