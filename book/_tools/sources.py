"""What the outputs of a chapter come from: its code cells, and the parts of `sigreg` and the stored records they use.

Modules are found through imports, so that a change in one that a chapter does not use leaves its outputs valid.
Comments and docstrings do not count. No code is executed here.
"""

import ast
import hashlib
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

# By its path, for `import sigreg` would load torch, which this check can do without.
_spec = importlib.util.spec_from_file_location("code", Path(__file__).resolve().parents[2] / "sigreg/lab/_code.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
code_only = cache(_module.code_only)


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

    # Experiments are imported by name while the code runs; a chapter that names one depends on it.
    named = [path.stem for path in (root / "sigreg/lab/experiments").glob("*.py") if path.stem in words]
    waiting = [*names_used(text), *(f"sigreg.lab.experiments.{name}" for name in named)]
    while waiting:
        for module in modules_of(waiting.pop(), root):
            place = module.relative_to(root)
            if place.as_posix() not in parts:
                source = module.read_text(encoding="utf-8")
                parts[place.as_posix()] = digest(code_only(source))
                waiting += names_used(source, package=".".join(place.parent.parts))

    if len(parts) > 1:
        data = [path for path in sorted((root / "sigreg").rglob("[!.]*[!~]")) if path.is_file()]
        data = [path for path in data if path.suffix not in {".py", ".pyc", ".md"} and path.parent.name != "_records"]
        parts["data files of sigreg"] = digest("".join(f"{path.name} {digest(path.read_bytes())} " for path in data))
    for record in sorted((root / "book/_records").glob("*.json")):
        if record.stem in words:
            parts[record.relative_to(root).as_posix()] = digest(record.read_bytes())
    return dict(sorted(parts.items()))


@cache
def names_used(source, package="sigreg"):
    """Return the dotted names that Python `source` imports or looks up; relative imports are seen from `package`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update("sigreg.*" if alias.name == "sigreg" and alias.asname else alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{base(node, package)}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


def base(node, package):
    """Return where `from ... import` imports from, in full, if it stands in a module of `package`."""
    above = package.split(".")
    above = above[: len(above) + 1 - node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def modules_of(name, root):
    """Return the files of the package that the dotted `name` stands for: all of them if that cannot be told."""
    package, *parts = name.split(".")
    if package != "sigreg" or not parts:
        return []  # another package; or `import sigreg`, and what is looked up in it has a longer name
    found, folder = [], root / "sigreg"
    for part in parts:
        if (folder / f"{part}.py").exists():
            return [*found, folder / f"{part}.py"]
        if not (folder / part / "__init__.py").exists():
            break
        folder = folder / part
        found.append(folder / "__init__.py")
    if found or parts[0].startswith("__"):
        return found
    for node in ast.parse((root / "sigreg/__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):  # is it a name that the package hands on from one of its modules?
            for alias in node.names:
                if parts[0] == (alias.asname or alias.name):
                    return modules_of(f"{base(node, 'sigreg')}.{alias.name}", root)
    return sorted((root / "sigreg").rglob("*.py"))


def record_problems(root):
    """Yield what is wrong with the stored records, a line each: cut short, a number that is none, parts missing."""

    def refuse(word):
        raise ValueError(f"it holds {word}, which is no number")

    for path in sorted((root / "book/_records").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        except ValueError as error:
            wrong = str(error)
        else:
            lacks = {"name", "description", "provenance", "units"} - set(record if isinstance(record, dict) else ())
            wrong = f"it lacks {', '.join(sorted(lacks))}" if lacks else ""
            if not lacks and record["name"] != path.stem:
                wrong = f"it is the record of {record['name']}"
        if wrong:
            here, remedy = path.relative_to(root), f"`python -m sigreg.lab.reproduce run {path.stem} --preset full`"
            yield f"{here}: the record cannot be used ({wrong}): restore it, or {remedy}"


def record_notes(root):
    """Yield a line for each stored record that other code made, and no run of some of its units has borne out since."""
    for path in sorted((root / "book/_records").glob("*.json")):
        provenance = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        checked = provenance.get("verified", {})
        if record_code(provenance["sources"], root) not in (provenance["code"], checked.get("code")):
            yield f"note: {path.relative_to(root)} was made by other code than stands now"


def record_code(sources, root):
    """Return the hash that `sigreg.lab.records` gives the code in these files; None if one of them is gone."""
    found = hashlib.sha256()
    for name in sources:
        if not (root / name).is_file():
            return None
        found.update(f"{name}\n{code_only((root / name).read_text(encoding='utf-8'))}\n\0".encode())
    return found.hexdigest()[:16]
