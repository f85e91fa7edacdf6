"The code that README.md and weights/README.md print runs as printed, in a fresh process, from the root of the repository."
import os
import re
import shlex
import subprocess
import sys

import papermill
import pytest
from test_house import ROOT

PAGES = ("README.md", "weights/README.md")
NAMED = r"\b[\w.-]+\.safetensors"


def blocks(page: str, language: str) -> list[str]: return re.findall(rf"^```{language}\n(.*?)^```", (ROOT/page).read_text(encoding="utf-8"), re.M | re.S)


def run(code: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning:__main__"}
    done = subprocess.run([sys.executable, "-"], input=code, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_every_fence_is_known():
    for page in PAGES: assert set(re.findall(r"^```(\w+)", (ROOT/page).read_text(encoding="utf-8"), re.M)) <= {"python", "sh"}, page


@pytest.mark.parametrize("page", PAGES)
def test_python_runs_as_printed(page):
    assert blocks(page, "python")
    run("\n".join(blocks(page, "python")) + "\nassert filled.shape == images.shape and filled.isfinite().all()")     # blocks build on each other, in order


def test_every_network_is_built_and_filled_as_printed():
    [code] = [block for block in blocks("weights/README.md", "python") if "name =" in block]
    names = [path.stem for path in (ROOT/"weights").glob("*.safetensors") if not re.match(r"cglow|dcgan|.*\.critic", path.stem)]
    assert len(names) > 10
    calls = "import torch\nx, mask = torch.rand(2, 3, 64, 64), torch.zeros(1, 1, 64, 64)\nmask[..., 16:48, 16:48] = 1\n"      # one mask for two pictures
    use = "assert model(x, mask)['fine'].shape == model.inpaint(x, mask).shape == x.shape"
    run(calls + "\n".join(re.sub('name = "[^"]*"', f'name = "{name}"', code) + use for name in sorted(names)))


@pytest.mark.parametrize("line", [line.split("#")[0].strip() for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()])
def test_shell_names_what_exists(line):
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT/"Makefile").read_text(), re.M)
        for word in words[1:]: assert word in targets or word.split("=")[0] in ("DATA", "ROOT", "PRESET", "ARGS", "PYTHON"), word
    elif words[0] == "papermill":
        known = papermill.inspect_notebook(ROOT/words[1])
        for i, word in enumerate(words):
            if word == "-p": assert words[i + 1] in known, words[i + 1]
    else: assert words[:2] == ["pip", "install"], line


def test_files_named_beside_code_exist():
    named = {name for page in PAGES for name in re.findall(NAMED, (ROOT/page).read_text(encoding="utf-8"))}
    assert {name for name in named if not (ROOT/"weights"/name).exists()} == set()
