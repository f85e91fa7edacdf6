"An archive, a wheel from the archive, the wheel alone in a bare environment: is anything missing?"
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest
from test_house import MODULES, ROOT, run, settings

BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel built from the source archive, as pip would do it."
    top = tmp_path_factory.mktemp("build")
    leave = shutil.ignore_patterns(".*", "runs", "build", "dist", "figures", "weights", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, top/"source", ignore=leave)
    run("-c", BUILD, "sdist", top, cwd=top/"source")
    [archive] = top.glob("*.tar.gz")
    with tarfile.open(archive) as tar: tar.extractall(top/"unpacked", filter="data")
    [unpacked] = (top/"unpacked").iterdir()
    run("-c", BUILD, "wheel", top, cwd=unpacked)
    [wheel] = top.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"inpaint_nb/{path.name}" for path in MODULES} <= set(names)
    assert {n.split("/")[0] for n in names} == {"inpaint_nb", f"inpaint_nb-{settings['version']}.dist-info"}
    assert any(n.endswith("/LICENSE") for n in names)


def test_wheel_works_in_a_bare_environment(wheel, tmp_path):
    home, elsewhere = tmp_path/"env", tmp_path/"elsewhere"
    elsewhere.mkdir()
    venv.create(home, with_pip=True, symlinks=os.name == "posix")
    python = home/("Scripts" if os.name == "nt" else "bin")/"python"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    def ask(*words):
        done = subprocess.run([python, *words], cwd=elsewhere, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
    ask("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel))
    # torch and the like are lent by the environment of the tests; a .pth file lends packages but no editable installs
    own = ask("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])")
    lent = dict.fromkeys(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
    with open(f"{own}/lent.pth", "w") as file: file.write("\n".join(lent) + "\n")
    names = [path.stem for path in MODULES]
    script = f"import importlib\nfor name in {names}: print(importlib.import_module('inpaint_nb.' + name).__file__)"
    assert ask("-c", script).split("\n") == [os.path.join(own, "inpaint_nb", f"{n}.py") for n in names]
    assert ask("-c", "import inpaint_nb, importlib.metadata as m; print(inpaint_nb.__version__, m.version('inpaint_nb'))") == f"{settings['version']} {settings['version']}"
    assert ask("-c", "from inpaint_nb.core import repo_root; print(repo_root())") == str(elsewhere)
