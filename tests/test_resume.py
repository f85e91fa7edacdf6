"A training that is killed, asked to end or out of disk, at whatever moment, leaves a checkpoint that loads, and resuming it ends in the very weights of the run that was never disturbed."
import json
import math
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

resource = pytest.importorskip("resource", reason="this system has no limits on files")

from inpaint_nb.cglow import ConditionalGlow, likelihood_loss
from inpaint_nb.core import seeded
from inpaint_nb.data import augment, synthetic_faces
from inpaint_nb.training import load_checkpoint, train

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
STEPS, BATCH, PATIENCE = 24, 8, 120
RANDOM, AIMED = 4, 8    # trainings killed at random moments; kills aimed at the writing of a checkpoint


class Faces:
    "What `train` needs of a set of images, without a disk."
    def __init__(self): self.images = synthetic_faces(40, 32)[0].float()/255
    def __len__(self): return len(self.images)
    def batch(self, indices): return self.images[indices]


def run_training(folder: str, save_every: int, full_after: int | None = None) -> None:
    """A small training in a process of its own; each step it begins is a byte in the file `begun`, so that another process can take aim.
    After step `full_after`, a multiple of 7, no file can grow beyond 2000 bytes; what the training says to that is in the file `error`."""
    torch.set_num_threads(1)
    with seeded(3): model = ConditionalGlow(32, 16, steps=1, widths=(24, 24, 24), features=(16, 16, 16), code=32)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    begun = open(f"{folder}/begun", "ab", buffering=0)

    def loss(model, images, generator):
        begun.write(b".")
        return likelihood_loss(model, images, generator)

    def monitor(model, step):
        if step == full_after: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return dict(score=math.sin(2*step) - 1e-3*sum(p.square().sum().item() for p in model.parameters()))

    try: log = train(model, loss, Faces(), steps=STEPS, batch_size=BATCH, seed=5, warmup=5, augment=augment, checkpoint=f"{folder}/run.pt",
                     save_every=save_every, log_every=4, monitor=monitor, monitor_every=7, best="score")
    except OSError as error: Path(folder, "error").write_text(str(error)); raise SystemExit(7)
    torch.save(dict(start=start, end=model.state_dict(), log=json.dumps(log)), f"{folder}/done.partial")
    os.replace(f"{folder}/done.partial", f"{folder}/done.pt")


@pytest.fixture(scope="module")
def fork():
    "Starts processes from one that has already imported torch: a kill then costs tenths of a second, not the import."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["inpaint_nb.cglow", "inpaint_nb.data", "inpaint_nb.training", "torch._dynamo"])    # Adam loads the last when first made
    running = []

    def start(*words):
        running.append(context.Process(target=run_training, args=words, daemon=True))
        running[-1].start()
        return running[-1]

    yield start
    for process in running:
        if process.is_alive(): process.kill()
        process.join()


def begun(folder) -> int:
    "Steps that trainings in `folder` have begun, those before a kill included."
    path = folder/"begun"
    return path.stat().st_size if path.exists() else 0


def wait(process, condition) -> None:
    "Until `condition()` holds or the process has ended."
    until = time.monotonic() + PATIENCE
    while process.is_alive() and not condition():
        if time.monotonic() > until: pytest.fail(f"waited {PATIENCE} s in vain")
        time.sleep(2e-4)


def kill(process) -> bool:
    "SIGKILL; whether it came before the end."
    process.kill(); process.join()
    assert process.exitcode in (-signal.SIGKILL, 0), f"the training failed with exit code {process.exitcode}"
    return process.exitcode != 0


def finish(process, folder) -> dict:
    "What the training leaves when nobody disturbs it."
    process.join(PATIENCE)
    assert process.exitcode == 0, f"exit code {process.exitcode}; the reason is in the captured output"
    return torch.load(folder/"done.pt", weights_only=True)


def checkpoint_step(folder) -> int:
    "The step that the checkpoint has reached, 0 without one; raises where the file does not load."
    path = folder/"run.pt"
    if not path.exists(): return 0
    saved = torch.load(path, weights_only=True)
    state = load_checkpoint(path, json.loads(saved["settings"]))
    assert all(v.isfinite().all() for part in ("model", "average") for v in state[part].values())
    return state["step"]


def assert_same(result: dict, wanted: dict) -> None:
    "Weights bit for bit, log number for number."
    assert result["end"].keys() == wanted["end"].keys()
    assert [k for k in wanted["end"] if not torch.equal(result["end"][k], wanted["end"][k])] == [], "these weights differ from the undisturbed run's"
    assert json.loads(result["log"]) == json.loads(wanted["log"])


@pytest.fixture(scope="module")
def undisturbed(fork, tmp_path_factory):
    "What the training gives when it is left alone, and the seconds that a step takes."
    folder = tmp_path_factory.mktemp("undisturbed")
    process = fork(str(folder), STEPS)
    wait(process, lambda: begun(folder)); since = time.monotonic()
    result = finish(process, folder)
    result["pace"] = (time.monotonic() - since)/STEPS
    moved = [k for k, v in result["start"].items() if not torch.equal(v, result["end"][k])]
    assert len(moved) > .9*len(result["start"]), "the training hardly moves a weight: equal weights would prove nothing"
    assert begun(folder) == STEPS
    return result


@pytest.mark.parametrize("seed", range(RANDOM))
def test_killed_at_random_moments(seed, fork, undisturbed, tmp_path):
    rng, save_every = random.Random(seed), (1, 2, 3, 5)[seed % 4]
    kills, reached = 0, 0
    for step in sorted(rng.sample(range(STEPS - 3), 3)):    # of all steps begun so far, repeated ones included
        process = fork(str(tmp_path), save_every)
        wait(process, lambda: begun(tmp_path) > step)
        time.sleep(rng.uniform(0, 2)*undisturbed["pace"])
        kills += kill(process)
        before, reached = reached, checkpoint_step(tmp_path)
        assert before <= reached <= STEPS
    assert kills, "the training was too quick to be killed"
    so_far = begun(tmp_path)
    result = finish(fork(str(tmp_path), save_every), tmp_path)
    assert begun(tmp_path) - so_far == STEPS - reached, "it did not go on from its checkpoint"
    assert_same(result, undisturbed)


def test_killed_while_a_checkpoint_is_written(fork, undisturbed, tmp_path):
    rng, hits, reached = random.Random(0), 0, 0
    half_written = lambda: [p for p in tmp_path.glob(".run.*.partial.pt") if p not in seen]
    for _ in range(AIMED):
        seen, wanted = set(tmp_path.glob(".run.*.partial.pt")), begun(tmp_path) + rng.randint(1, 3)
        process = fork(str(tmp_path), 1)
        wait(process, lambda: begun(tmp_path) >= wanted)
        wait(process, half_written)
        kill(process)
        hits += bool(half_written())                        # what a kill in the midst of writing leaves behind
        before, reached = reached, checkpoint_step(tmp_path)
        assert before <= reached <= STEPS
        if hits == 3 or reached >= STEPS: break
    assert hits, "no kill hit the writing of a checkpoint"
    assert_same(finish(fork(str(tmp_path), 1), tmp_path), undisturbed)
    assert not list(tmp_path.glob(".run.*")), "what the kills left half written is still there"


def test_asked_to_end(fork, undisturbed, tmp_path):
    process = fork(str(tmp_path), STEPS)                    # which saves nothing of its own accord before the end
    wait(process, lambda: begun(tmp_path) > 5)
    for _ in range(2): process.terminate()                  # some schedulers ask more than once
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGTERM, "it ended, but not as the signal wants it"
    assert checkpoint_step(tmp_path) == begun(tmp_path) < STEPS, "the step in hand is not saved"
    assert_same(finish(fork(str(tmp_path), STEPS), tmp_path), undisturbed)
    assert begun(tmp_path) == STEPS, "a step was done twice"


def test_disk_full(fork, undisturbed, tmp_path):
    process = fork(str(tmp_path), 2, 7)
    process.join(PATIENCE)
    assert process.exitcode == 7
    said = (tmp_path/"error").read_text()
    assert str(tmp_path/"run.pt") in said and "File too large" in said and "the checkpoint before it is kept" in said
    assert checkpoint_step(tmp_path) == 6 and not list(tmp_path.glob(".run.*"))
    assert_same(finish(fork(str(tmp_path), 2), tmp_path), undisturbed)
