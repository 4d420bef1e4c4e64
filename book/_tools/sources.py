"""What the outputs of a chapter are judged by without running it: its code, and the stored results that it shows.

A chapter names a record by its experiment. What counts of a record is what it holds and which runs made it, and the
experiment's ``VERSION``; the package's own code does not count, for nbval runs every chapter and compares. No code is
executed here, and no torch is needed.
"""

import ast
import hashlib
import importlib.util
import json
import re
from pathlib import Path

# By its path, for `import sigreg` would load torch, which this check can do without.
_spec = importlib.util.spec_from_file_location("files", Path(__file__).resolve().parents[2] / "sigreg/lab/files.py")
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)


def digest(content):
    """Return twelve hexadecimal digits that stand for `content`, a string or bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def outputs_from(cells, root):
    """Return what the outputs of a chapter's `cells` depend on, as `{what: digest of it}`."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    # The address in the setup cell, used in Colab alone, may change without making outputs stale.
    own = [[re.sub(r"git\+https://[^\"\s]+", "git+https://", c.source), c.metadata.get("tags", [])] for c in code]
    parts = {"the code": digest(json.dumps(own))}
    text = "\n".join(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source) for cell in code)
    words = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    for path in record_paths(root):
        if path.stem in words:
            parts[path.relative_to(root).as_posix()] = digest(shown_of(path))
    for path in sorted((root / "sigreg/lab/experiments").glob("*.py")):
        if path.stem in words:
            parts[f"VERSION in {path.relative_to(root).as_posix()}"] = str(version_of(path))
    return dict(sorted(parts.items()))


def record_paths(root):
    """Return the stored records, sorted."""
    return sorted((root / "book/_records").glob("*.json"))


def shown_of(path):
    """Return what a chapter can show of a record: results and the runs that made them, not a later verification."""
    text = path.read_text(encoding="utf-8")
    try:
        record = json.loads(text)
    except ValueError:  # cut short: `record_problems` says so
        return text
    provenance = {key: value for key, value in record.get("provenance", {}).items() if key != "verified"}
    return json.dumps([provenance, record.get("units")], sort_keys=True)


def version_of(path):
    """Return the VERSION of an experiment's module, as its source says it; None if that is no plain number."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            return node.value.value if isinstance(node.value, ast.Constant) else None
    return None


def record_problems(root):
    """Yield what is wrong with the stored records, a line each.

    One is cut short, has a number that is none, lacks a part, is of another version than its experiment; or a file
    that its run made, or that its units used, has other bytes now.
    """

    def refuse(word):
        raise ValueError(f"it holds {word}, which is no number")

    records = {}
    for path in record_paths(root):
        wrong = ""
        try:
            record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        except ValueError as error:
            wrong = str(error)
        else:
            lacks = {"name", "description", "provenance", "units"} - set(record if isinstance(record, dict) else ())
            wrong = f"it lacks {', '.join(sorted(lacks))}" if lacks else ""
            if not lacks and record["name"] != path.stem:
                wrong = f"it is the record of {record['name']}"
        if not wrong:
            records[path] = record
        yield from [unusable(root, path, wrong)] if wrong else []
    made = {sha for record in records.values() for entry in record["units"] for sha in entry.get("files", {}).values()}
    for path, record in records.items():
        for wrong in files.changed_files(record, path.parent):
            yield unusable(root, path, wrong)
        if {entry["unit"].get("encoder") for entry in record["units"]} - {None, *made}:
            yield unusable(root, path, "its units used a file that no stored run made")
        experiment = root / f"sigreg/lab/experiments/{path.stem}.py"
        version = version_of(experiment) if experiment.is_file() else None
        if version is not None and {entry["unit"].get("version") for entry in record["units"]} != {version}:
            yield unusable(root, path, f"its experiment is at VERSION {version} now")


def unusable(root, path, wrong):
    """Return the line that says what is wrong with a record, and what to do."""
    remedy = f"`python -m sigreg.lab.reproduce run {path.stem} --preset full --overwrite`"
    return f"{path.relative_to(root)}: the record cannot be used ({wrong}): restore it, or {remedy}"
