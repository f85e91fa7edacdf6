"The unit tests live in the notebooks, each beside what it tests; here they are run."
import os
import subprocess
import sys

from readme import ROOT


def test_cells_of_every_notebook():
    script = "from nbdev.test import nbdev_test; nbdev_test(n_workers=1, timing=True, skip_file_glob='exp_*')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"})
    print(done.stdout)
    assert done.returncode == 0 and "Success." in done.stdout, done.stdout + done.stderr
