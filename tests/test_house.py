"What no notebook can check about itself: modules, README and notebooks agree, and nothing strays from the house rules."
import ast
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from readme import ROOT, from_top, render

from inpaint_nb.core import Results, read_record
from inpaint_nb.figures import read_csv

NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))
EXPERIMENTS = [path for path in NOTEBOOKS if path.name.startswith("exp_")]
MODULES = sorted(path for path in (ROOT/"inpaint_nb").glob("*.py") if not path.name.startswith("_"))
name = lambda path: path.stem
settings = configparser.ConfigParser(interpolation=None)
settings.read(ROOT/"settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]


def run(*words, cwd) -> str:
    "Run Python with `words`, return what it prints, and fail showing all of it when it fails."
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def cells(path: Path) -> list: return nbformat.read(path, as_version=4).cells
def code(path: Path) -> list: return [cell for cell in cells(path) if cell.cell_type == "code"]


@pytest.fixture
def copy(tmp_path):
    "The notebooks and the settings, without the package."
    for item in ("settings.ini", "README.md"): shutil.copy(ROOT/item, tmp_path)
    shutil.copytree(ROOT/"nbs", tmp_path/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return tmp_path


# ---- drift

def test_modules_are_what_the_notebooks_export(copy):
    run("-c", "from nbdev.doclinks import nbdev_export; nbdev_export()", cwd=copy)
    made = {path.name: path.read_bytes() for path in (copy/"inpaint_nb").glob("*.py")}
    here = {path.name: path.read_bytes() for path in (ROOT/"inpaint_nb").glob("*.py")}
    assert sorted(made) == sorted(here), "run `make export`"
    assert [n for n in made if made[n] != here[n]] == [], "these differ from their notebooks; run `make export`"


def test_notebooks_are_clean(copy):
    run("-c", "from nbdev.clean import nbdev_clean; nbdev_clean()", cwd=copy)
    changed = [path.name for path in NOTEBOOKS if (copy/"nbs"/path.name).read_bytes() != path.read_bytes()]
    assert changed == [], "run `make clean`"


def test_readme_is_the_index():
    assert (ROOT/"README.md").read_text(encoding="utf-8") == render(ROOT/"nbs"/"index.ipynb"), "run `make readme`"


def test_links_of_the_readme_lead_somewhere():
    for page in ("README.md", "CHANGELOG.md", "weights/README.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT/page).read_text(encoding="utf-8"), flags=re.S)
        links = re.findall(r"""(?:\]\(|(?:src|href)=["'])(?![a-z]+:|#)([^)"'\s#]+)""", text)
        assert [link for link in links if not ((ROOT/page).parent/link).exists()] == [], page


def test_links_are_turned():
    text = "[a](00_core.ipynb) ![b](../figures/b.png) [c](https://x.org/y) [d](#e) <img src='../f.png'> `g[0](h)`"
    assert from_top(text) == "[a](nbs/00_core.ipynb) ![b](figures/b.png) [c](https://x.org/y) [d](#e) <img src='f.png'> `g[0](h)`"


# ---- notebooks

@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_begins_with_title_and_description(path):
    first = next(cell for cell in cells(path) if cell.cell_type != "raw")
    assert first.cell_type == "markdown" and re.match(r"# .+\n+> .+", first.source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_holds_its_outputs_and_no_errors(path):
    outputs = [output for cell in code(path) for output in cell.outputs]
    assert outputs or path.stem == "index", "no outputs: execute it, then `make clean`"
    assert [o.get("evalue") for o in outputs if o.output_type == "error"] == []
    noise = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert noise == [], "stderr in the saved outputs: a warning or a progress bar"


def test_the_experiments_are_there():
    assert {"exp_cglow_attack", "exp_benchmarks"} <= {path.stem for path in EXPERIMENTS}
    assert {f"exp_{folder.name}" for folder in (ROOT/"figures").iterdir()} == {path.stem for path in EXPERIMENTS}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_experiment_has_one_parameters_cell_and_defines_nothing(path):
    tags = [tag for cell in cells(path) for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1
    assert "injected-parameters" not in tags
    body = "\n".join(re.sub(r"^[%!].*$", "", cell.source, flags=re.M) for cell in code(path))
    defined = [node.name for node in ast.walk(ast.parse(body)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    assert defined == [], "an experiment defines no class and no function"


def declared(path: Path, record: dict) -> list[str]:
    "The files that an experiment says it writes: its dictionary `files`, by the parameter that asks for them ("" for those of every run; a record older than the parameter had no choice)."
    [files] = re.findall(r"^files = (\{.*?\})(?: *#.*)?$", "\n".join(cell.source for cell in code(path)), re.M | re.S)
    return sorted(file for asks, some in ast.literal_eval(files).items() if not asks or record["parameters"].get(asks, True) for file in some)


@pytest.mark.parametrize("folder", [f for f in sorted((ROOT/"figures").glob("*/*")) if f.name != "superseded"], ids=lambda folder: "-".join(folder.parts[-2:]))
def test_published_folder_holds_what_its_experiment_declares(folder):
    record = read_record(folder/"record.json")
    assert sorted(path.name for path in folder.iterdir()) == declared(ROOT/"nbs"/f"exp_{folder.parent.name}.ipynb", record)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p not in EXPERIMENTS and p.stem != "index"], ids=name)
def test_number_and_module(path):
    assert re.match(r"\d\d_", path.stem)
    assert re.search(r"^#\|\s*default_exp (\w+)", "\n".join(c.source for c in code(path)), re.M)


def test_numbers_are_unique():
    numbers = [path.stem[:2] for path in NOTEBOOKS if path.stem[:2].isdigit()]
    assert len(numbers) == len(set(numbers))


def test_no_machine_paths():
    texts = [*NOTEBOOKS, *MODULES, *(ROOT/page for page in ("README.md", "CHANGELOG.md", "weights/README.md")), *(p for p in (ROOT/"figures").rglob("*") if p.suffix in (".csv", ".md", ".json"))]
    local = re.compile(re.escape(str(ROOT)) + r"\b|/site-packages/|/tmp/\w|/ipykernel_\d")
    assert {path.name: found[0] for path in texts if (found := local.search(path.read_text(encoding="utf-8")))} == {}


# ---- modules

def imported(path: Path) -> set[str]:
    "Every module that `path` imports, at the top or inside functions; a relative import as inpaint_nb.<name>."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module if not node.level else "inpaint_nb" + ("." + node.module if node.module else "")
            found |= {base} | ({f"inpaint_nb.{alias.name}" for alias in node.names} if base == "inpaint_nb" else set())
    return found


def test_modules_import_only_lower_numbers():
    number = {}
    for path in NOTEBOOKS:
        if exp := re.search(r"^#\|\s*default_exp (\w+)", "\n".join(c.source for c in code(path)), re.M): number[exp[1]] = path.stem[:2]
    assert set(number) == {path.stem for path in MODULES}
    used = {path.stem: imported(path) for path in MODULES}
    upward = [(name, other) for name, names in used.items() for other in number
              if f"inpaint_nb.{other}" in names and number[other] >= number[name]]
    assert upward == []


OPTIONAL = {"cv2", "torchmetrics", "torchvision"}    # imported inside functions that say how to install them; never on import (below)


def test_modules_import_only_what_the_package_requires():
    plain = {"scikit-image": "skimage", "pillow": "PIL"}
    required = {plain.get(word, word) for word in map(lambda w: re.split("[<>=]", w)[0], settings["requirements"].split())}
    used = {full.split(".")[0] for path in MODULES for full in imported(path)} - set(sys.stdlib_module_names) - {"inpaint_nb"}
    assert used - OPTIONAL <= required | {"nbformat"}    # nbformat comes with papermill


def test_exported_package_has_no_undefined_names():
    run("-m", "ruff", "check", "--no-cache", "--isolated", "--select", "F,E9", "--exclude", "_modidx.py", ROOT/"inpaint_nb", cwd=ROOT)


def test_importing_everything_stays_light(tmp_path):
    slow = [*OPTIONAL, "matplotlib", "skimage", "scipy", "pandas", "IPython", "ipykernel", "papermill", "nbformat", "nbdev", "fastcore", "captum", "normflows"]
    script = (f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(f"import inpaint_nb.{path.stem}" for path in MODULES)
              + f"\nprint(*[name for name in {slow} if name in sys.modules])")
    assert run("-c", script, cwd=tmp_path).split() == []


# ---- results

def test_published_tables_are_even():
    tables = [path for path in (ROOT/"figures").rglob("*") if path.name.endswith((".csv", ".csv.gz"))]
    assert len([path for path in tables if path.suffix == ".gz"]) >= 13
    for path in tables: assert read_csv(path)[1], f"{path} holds no rows"                         # raises for uneven ones


@pytest.mark.parametrize("path", sorted((ROOT/"figures").glob("*/*/per_image.csv.gz")), ids=lambda path: "-".join(path.parts[-3:-1]))
def test_every_image_is_that_of_the_results(path):
    header, rows = read_csv(path)
    names = {row["model"] for row in Results.read(path.with_name("results.csv"))}
    assert {row[0] for row in rows} <= names, "a name that results.csv does not know"
    key = [i for i, column in enumerate(header) if column in ("model", "training", "mask", "attack", "target", "eps")]
    images = {}
    for row in rows: images.setdefault(tuple(row[i] for i in key), []).append(int(row[header.index("image")]))
    assert [who for who, found in images.items() if found != list(range(len(found)))] == [], "pictures that are missing or doubled"


# ---- installation

def test_every_requirement_is_pinned():
    pins = [line for line in (ROOT/"constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    flat = lambda word: re.sub(r"[-_.]+", "-", re.split("[<>=~!]", word)[0]).lower()
    wanted = settings["requirements"].split() + settings["dev_requirements"].split() + settings["classical_requirements"].split()
    assert {flat(word) for word in wanted} <= {flat(line) for line in pins}
    assert "torch==2.13.0" in pins


def test_weights_are_small_and_have_a_row():
    kept = {path.name: path for path in (ROOT/"weights").rglob("*.safetensors")}
    rows = re.findall(r"^\| (\S+\.safetensors) +\|", (ROOT/"weights"/"README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(kept), "every file has one row in weights/README.md, and every row its file"
    assert {name for name, path in kept.items() if not path.with_suffix(".json").exists()} == set()
    assert {name: size for name, path in kept.items() if (size := path.stat().st_size) > 15e6} == {}
