"Every experiment runs from end to end in its smallest form, away from the repository, and refuses what it does not know."
import papermill
import pytest
from test_house import EXPERIMENTS, ROOT, declared, name

from inpaint_nb.core import Results, read_record
from inpaint_nb.figures import read_csv

papermill_execute = dict(progress_bar=False, log_output=False)


def committed() -> dict:
    "Everything that an experiment could overwrite: name -> size and time of the last change."
    folders = ("nbs", "inpaint_nb", "figures", "weights")
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for f in folders for p in (ROOT/f).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_experiment_runs(path, tmp_path):
    before, out = committed(), tmp_path/"results"
    papermill.execute_notebook(path, tmp_path/"out.ipynb", dict(preset="smoke", out_dir=str(out)), cwd=tmp_path, **papermill_execute)
    [record] = out.rglob("record.json")
    assert read_record(record)["parameters"]["preset"] == "smoke"
    for table in out.rglob("results.csv"): assert len(Results.read(table))
    for table in [*out.rglob("*.csv"), *out.rglob("*.csv.gz")]: assert read_csv(table)[1]
    wrote = [file for file in out.rglob("*") if file.is_file() and not {"weights", "outcomes"} & set(file.parts)]
    assert sorted(file.name for file in wrote) == declared(path, read_record(record)), "what it writes is not what it declares in `files`"
    assert {file.parent for file in wrote} == {record.parent}
    assert {p for p in tmp_path.iterdir()} == {out, tmp_path/"out.ipynb"}, "it wrote into the directory that it was started from"
    assert committed() == before, "it wrote into the repository although out_dir is elsewhere"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_experiment_refuses_what_it_does_not_know(path, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(path, tmp_path/"out.ipynb", dict(preset="smoke", out_dir=str(tmp_path), seeed=1), cwd=tmp_path, **papermill_execute)
    assert error.value.ename == "ValueError"
    for word in ("'seeed'", "did you mean 'seed'", "preset", "out_dir"): assert word in error.value.evalue

    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(path, tmp_path/"out.ipynb", dict(preset="enormous", out_dir=str(tmp_path)), cwd=tmp_path, **papermill_execute)
    assert error.value.ename == "ValueError"
    for word in ("'enormous'", "'smoke'", "'laptop'"): assert word in error.value.evalue
