"""Rehearse chapters as Colab would run them: Colab's packages, an empty folder, one notebook, its own first cell.

    python book/_tools/colab.py                       rehearse all chapters
    python book/_tools/colab.py FILE ...              rehearse only these
    python book/_tools/colab.py --out FOLDER          keep the executed notebooks

The packages are those of tests/colab/colab-packages.txt, in an environment of their own (about 5 GB, made once, in
.venv/colab). A chapter passes if it finishes, shows no warning, and its first cell, run unchanged, adds this package
and nothing else; only the address that pip asks leads to this checkout, as it stands, committed or not. Printed are
each chapter's time and memory, and where its outputs are not those that are stored: Colab has another Python and
another torch, so that this is also the test of whether the book's numbers depend on them.
"""

import argparse
import contextlib
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import compare
import nbformat
import stamp

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "tests/colab/colab-packages.txt"
PYTHONS = ("3.13", "3.12", "3.11")  # Colab's own first
TIMEOUT = 900  # seconds a cell may take

# A bar is news of progress, not a warning. Readers of Colab see it, so it is left on.
PROGRESS_BAR = re.compile(r"[^\n\r]*\d+%\|[^\n\r]*[\r\n]*|\r|\x1b\[A")
WARNING = re.compile(r"(?mi)^.*(?:\b\w*warning:|^error:|\bdeprecat).*$")

# nbval compares no pictures either. Texts kept for other pages are kept by the book's tools, which Colab has not.
NOT_COMPARED = ("image/svg+xml", "image/png", "image/jpeg", "application/papermill.record/text/plain")
NOT_COMPARED_TAGS = {"nbval-ignore-output", "nbval-skip"}


# --- The environment ------------------------------------------------------------------------------------------------


def pins(text):
    """Return `{package: version}` as the lines `package==version` of `text` say; comments do not count."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return {normal(name): version for name, version in (line.split("==") for line in lines if line)}


def normal(name):
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_python(version):
    """Return an interpreter of that version, or None: one on the path, pyenv's, or one that uv knows of."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        found = subprocess.run([uv, "python", "find", "--no-python-downloads", version], capture_output=True, text=True)
        places += found.stdout.split() if found.returncode == 0 else []
    for place in filter(None, places):
        asked = subprocess.run([place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True)
        if asked.returncode == 0 and asked.stdout.decode().strip() == version:  # a shim of pyenv may lead nowhere
            return str(place)
    return None


def make_environment(folder, packages, version=None):
    """Make, or find, an environment that holds the `packages` file; return its interpreter and what to say of it."""
    asked = [version] if version else PYTHONS
    found = next((place for place in map(find_python, asked) if place), None)
    if found is None:
        raise SystemExit(f"no Python {' or '.join(asked)} on this machine: install one, or name another with --python")
    python, made_of = folder / "bin/python", folder / "made_of.txt"
    wanted = f"{found}\n{packages.read_text(encoding='utf-8')}"
    if not (made_of.exists() and made_of.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        uv = [Path(sys.executable).with_name("uv")]
        subprocess.run([*uv, "venv", "--quiet", "--python", found, folder], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, "-r", packages], check=True)
        made_of.write_text(wanted, encoding="utf-8")
    remove(python, "sigreg")  # a rehearsal that was killed may have left it
    have, pinned = installed(python), pins(packages.read_text(encoding="utf-8"))
    if wrong := [f"{name} {have.get(name)}, not {v}" for name, v in pinned.items() if have.get(name) != v]:
        raise SystemExit(f"{folder} is not what {packages.name} asks for ({'; '.join(wrong)}): delete it and run again")
    is_version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    note = "" if is_version.startswith(f"Python {PYTHONS[0]}.") else f" (Colab has {PYTHONS[0]}, this machine has not)"
    return python, f"{is_version}{note}, all {len(pinned)} pins of {packages.name} and {len(have) - len(pinned)} more"


def installed(python):
    """Return `{package: version}` of what the interpreter `python` finds; for one from git, the address and commit."""
    code = """
import json, importlib.metadata as m
found = {}
for d in m.distributions():
    address = json.loads(d.read_text("direct_url.json") or "{}")
    commit = address.get("vcs_info", {}).get("commit_id")
    found[d.metadata["Name"]] = f"{address['url']}@{commit}" if commit else d.version
print(json.dumps(found))"""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return {normal(name): version for name, version in json.loads(done.stdout).items()}


# --- The address ----------------------------------------------------------------------------------------------------


def snapshot(root, bare, branch):
    """Put the files of the checkout `root`, as they stand, into a new repository `bare`; return the commit."""
    git = ["git", f"--git-dir={bare}", f"--work-tree={root}", "-c", "user.name=rehearsal", "-c", "user.email=none"]
    git += ["-c", "core.autocrlf=false", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "--quiet", "--bare", bare], check=True)
    for command in (
        ["symbolic-ref", "HEAD", f"refs/heads/{branch}"],
        ["config", "uploadpack.allowFilter", "true"],  # pip asks for a partial clone
        ["add", "--all", "."],
        ["commit", "--quiet", "--message", "what is rehearsed"],
    ):
        subprocess.run([*git, *command], cwd=root, check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def private_environment(home, bare, address):
    """Return the variables of a stranger's machine: an empty home, and git that finds `address` in `bare`."""
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "{bare.as_uri()}"]\n\tinsteadOf = {address}\n', encoding="utf-8")
    personal = ("SIGREG_", "PYTHON", "MPL", "JUPYTER", "IPYTHON", "XDG_", "GIT_", "VIRTUAL_ENV", "TQDM_", "CONDA")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(personal)}
    user_pip = [Path.home() / place for place in (".config/pip/pip.conf", ".pip/pip.conf")]
    if found := [path for path in user_pip if path.exists()]:
        kept["PIP_CONFIG_FILE"] = str(found[0])  # the way to the registry is not personal
    return kept | {"HOME": str(home), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


# --- A chapter ------------------------------------------------------------------------------------------------------


def rehearse(path, python, bare, commit, address, package="sigreg", keep=None):
    """Run the notebook `path` alone in an empty folder; return a dictionary that says how it went."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    before, failure, memory, ended = installed(python), None, [0], []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        variables = private_environment(scratch / "home", bare, address)
        variables["PATH"] = os.pathsep.join([str(Path(python).parent), variables["PATH"]])
        # Colab's fonts are listed already; making the list is not the chapter's time, nor its warning.
        subprocess.run([python, "-c", "import matplotlib.font_manager"], env=variables, capture_output=True)
        (scratch / "empty").mkdir()
        shutil.copy(path, scratch / "empty")

        def on_end(cell, cell_index, **_):
            ended.append(time.perf_counter())
            memory[0] = max(memory[0], peak_memory(client.km))

        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=TIMEOUT,
            record_timing=False,
            resources={"metadata": {"path": str(scratch / "empty")}},
            on_cell_executed=on_end,
        )
        kernel = client.create_kernel_manager()
        kernel.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel._kernel_spec = KernelSpec(argv=argv, display_name="rehearsal", language="python")
        kernel.transport, kernel.ip = "ipc", str(scratch / "socket")
        kernel.connection_file = str(scratch / "kernel.json")
        begin = time.perf_counter()
        with open(scratch / "kernel.log", "w") as log:
            try:
                client.execute(env=variables, stderr=log)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                failure = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
        if failure:
            failure += "\n" + (scratch / "kernel.log").read_text(errors="replace")[-500:]
    after = installed(python)
    remove(python, package)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, keep / path.name)
    problems = [] if failure is None else [f"it does not finish: {failure}"]
    problems += warnings_shown(notebook.cells)
    if failure is None:
        problems += what_pip_did(before, after, package, f"{address}@{commit}")
    stored = nbformat.read(path, as_version=4).cells
    return {
        "chapter": path.stem,
        "seconds": time.perf_counter() - begin if not ended else ended[-1] - begin,
        "start": ended[0] - begin if ended else None,
        "memory": memory[0],
        "problems": problems,
        "differences": differences(stored, notebook.cells) if failure is None else [],
    }


def remove(python, package):
    """Take `package` out of the environment, if a rehearsal left it there."""
    if normal(package) in installed(python):
        command = [python, "-I", "-m", "pip", "uninstall", "--quiet", "--yes", package]
        subprocess.run(command, check=True, capture_output=True)


def peak_memory(kernel):
    """Return the most memory, in bytes, that the kernel's process has had so far; 0 where Linux does not tell."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        status = Path(f"/proc/{kernel.provisioner.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    return 0


def warnings_shown(cells):
    """Return what a reader would see of warnings: anything on stderr but bars, and what pip says in its own way."""
    found = []
    for k, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            text = output.get("text", "") if output.output_type == "stream" else ""
            shown = PROGRESS_BAR.sub("", text).strip() if output.get("name") == "stderr" else ""
            if not shown and (match := WARNING.search(text)) and output.get("name") == "stdout":
                shown = match[0].strip()
            if shown:
                found.append(f"cell {k} shows a warning: {shown[-300:]!r}")
    return found


def what_pip_did(before, after, package, wanted):
    """Return what pip did to the environment other than add `package` from the address and commit `wanted`."""
    found = []
    for name in sorted({*before, *after} - {normal(package)}):
        if before.get(name) != after.get(name):
            was, now = before.get(name, "missing"), after.get(name, "missing")
            found.append(f"pip touched {name}: it was {was} and is {now}")
    got = after.get(normal(package))
    if got != wanted:
        found.append(f"{package} is {got or 'not installed'}, not {wanted}")
    return found


# --- Comparing ------------------------------------------------------------------------------------------------------


def differences(stored, new):
    """Return where the outputs that nbval compares differ, as `{cell, kind, stored, new}`; cells count from 1."""
    found = []
    for k, (cell, other) in enumerate(zip(stored, new, strict=True), 1):
        if cell.cell_type != "code" or NOT_COMPARED_TAGS & set(cell.metadata.get("tags", [])):
            continue
        was, now = compared(cell.outputs), compared(other.outputs)
        room = compare.allowed(cell.metadata.get("tags", []))
        for kind in sorted({*was, *now}):
            pairs = zip_longest(was[kind], now[kind], fillvalue="")
            if any(compare.difference(stored, here, **room) for stored, here in pairs):
                lines = [line for text in was[kind] for line in text.splitlines()]
                others = [line for text in now[kind] for line in text.splitlines()]
                pairs = difflib.ndiff(lines, others)
                changed = [line for line in pairs if line[:1] in "+-"]
                found.append({"cell": k, "kind": kind, "lines": changed})
    return found


def compared(outputs):
    """Return `{kind: [texts]}` of `outputs`, as nbval looks at them: streams joined, pictures left out."""
    kinds = defaultdict(list)
    for output in outputs:
        if output.output_type == "stream":
            text = PROGRESS_BAR.sub("", output.text) if output.name == "stderr" else output.text
            if text:
                kinds[output.name] = ["".join([*kinds[output.name], text])]
        elif "application/vnd.jupyter.widget-view+json" not in output.get("data", {}):  # a bar, again
            for kind, text in output.get("data", {}).items():
                if kind not in NOT_COMPARED:
                    kinds[kind].append(text if isinstance(text, str) else json.dumps(text, sort_keys=True))
    return kinds


# --- The command line -----------------------------------------------------------------------------------------------


def table(results):
    """Return the lines of the table of chapters, and under it what is wrong and what differs."""
    width = max(len(result["chapter"]) for result in results)
    lines = [f"{'chapter':{width}}  seconds  of them pip  memory  outputs"]
    for result in results:
        gigabytes = f"{result['memory'] / 2**30:.1f} GB" if result["memory"] else "?"
        start = f"{result['start']:.0f}" if result["start"] else "?"
        cells = len({found["cell"] for found in result["differences"]})
        outputs = f"{cells} cells differ" if cells else "as stored"
        verdict = "FAILED" if result["problems"] else outputs
        lines.append(f"{result['chapter']:{width}}  {result['seconds']:7.0f}  {start:>11}  {gigabytes:>6}  {verdict}")
    for result in results:
        lines += [f"{result['chapter']}: {problem}" for problem in result["problems"]]
        for found in result["differences"]:
            lines.append(f"{result['chapter']}: cell {found['cell']}, {found['kind']}, stored (-) and here (+):")
            lines += [f"    {line[:240]}" for line in found["lines"][:12]]
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="notebooks (default: all chapters)")
    parser.add_argument("--python", metavar="VERSION", help=f"default: the first found of {', '.join(PYTHONS)}")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="the list of pins")
    parser.add_argument("--env", type=Path, default=ROOT / ".venv/colab", help="where the environment lies")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the executed notebooks there")
    parser.add_argument("--strict", action="store_true", help="fail also where outputs are not those that are stored")
    options = parser.parse_args(arguments)
    stems = [re.sub(r"\.(md|ipynb)$", "", Path(name).name) for name in options.files]
    paths = [ROOT / f"notebooks/{stem}.ipynb" for stem in stems] or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if missing := [path.name for path in paths if not path.exists()]:
        parser.error(f"there is no notebook {', '.join(missing)}")
    python, about = make_environment(options.env.resolve(), options.packages, options.python)
    print(about, flush=True)
    address, results = stamp.present_address(ROOT), []
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / "repository.git"
        commit = snapshot(ROOT, bare, address.branch)
        for path in paths:
            results.append(rehearse(path, python, bare, commit, address.url, keep=options.out))
            print(f"{path.stem}: {'FAILED' if results[-1]['problems'] else 'finished'}", flush=True)
    print(*table(results), sep="\n")
    failed = any(result["problems"] or (options.strict and result["differences"]) for result in results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
