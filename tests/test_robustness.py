"Every network under attack: the promises of the attacks hold on it, the checks of `diagnose` can be made on it, and sabotage is found."
import warnings
from copy import deepcopy
from functools import cache, partial

import pytest
import torch

from inpaint_nb.attacks import GradientHealth, GradientWarning, fgsm, frozen, pgd, value_and_grad
from inpaint_nb.cglow import ConditionalGlow, likelihood_loss
from inpaint_nb.core import seeded
from inpaint_nb.inpainter import Inpainter
from inpaint_nb.data import synthetic_faces
from inpaint_nb.inpainter_training import NETWORKS, build, inpainting_loss
from inpaint_nb.masks import center_mask, freeform_mask
from inpaint_nb.robustness import ATTACKS, CHECKS, Trial, attack_inpainter, inpainting_objective, promises, public_fill, robust_loss, robustness_monitor, score_attacked
from inpaint_nb.metrics import psnr
from inpaint_nb.stronger_attacks import pgd_restarts, square, worst_case
from inpaint_nb.training import train

SIDE, EIGHT = 32, 8/255
SMALL = dict(context_encoder=dict(size=32, width=8, bottleneck=32), contextual_attention=dict(width=4, size=32), partial=dict(width=4, levels=4),
             gated=dict(width=4, size=32), damgan=dict(width=4, size=32), glcic=dict(width=8, size=32), parallel=dict(width=4, size=32), l2=dict(width=4, blocks=1))
FEW = ATTACKS | dict(pgd10=partial(pgd, steps=3), momentum=partial(ATTACKS["momentum"], steps=2), pgd_restarts=partial(pgd_restarts, steps=4, restarts=2), square=partial(square, queries=8))
FACES = synthetic_faces(64, SIDE, seed=0)[0]
IMAGES = FACES[:3].float()/255
MASKS = torch.cat([center_mask(SIDE, 16), freeform_mask(SIDE, batch=2, seed=1)])


class Faces:
    def __len__(self): return len(FACES)
    def batch(self, i): return FACES[i].float()/255


@cache
def trained(name):
    "A narrow network, trained for a moment: a fresh one hardly looks at its input."
    with seeded(0): net = ConditionalGlow(SIDE, 16, steps=1, widths=(12,)*3, features=(12, 12, 16), code=16) if name == "cglow" else build(name, SMALL[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # partial convolution says that it has no VGG features
        train(net, likelihood_loss if name == "cglow" else inpainting_loss(), Faces(), steps=150, batch_size=8, lr=3e-3, warmup=5, ema=.9, precision="float32")
    return net


@pytest.fixture(scope="module", params=NETWORKS)
def net(request): return trained(request.param)


@pytest.fixture(scope="module", params=[*NETWORKS, "cglow"])
def trial(request):
    net = trained(request.param)
    if request.param == "cglow": return Trial(net, IMAGES, net.mask, steps=10, queries=8, samples=1, temperature=0.)
    return Trial(net, IMAGES, MASKS, steps=10, queries=8)


def test_all_networks_are_tested(): assert SMALL.keys() == NETWORKS.keys()


def test_attacks_keep_their_promises(trial):
    kept = promises(trial, FEW)
    assert len(kept) > 35 and [f.check for f in kept if not f.passed] == []


@pytest.mark.parametrize("check", CHECKS)
def test_check(trial, check):
    finding = CHECKS[check](trial)
    nearly = check == "steps" and finding.numbers["patient"] > .9*finding.numbers["pgd"]      # of networks trained this little no more can be asked
    assert finding.passed or nearly, finding.words


def test_the_network_is_left_as_it_was(net):
    kept, p = {k: v.clone() for k, v in net.state_dict().items()}, next(net.parameters())
    p.grad = torch.full_like(p, 7.)
    net.train()
    for name in FEW:
        with warnings.catch_warnings(): warnings.simplefilter("ignore", GradientWarning); attack_inpainter(net, IMAGES, MASKS, FEW[name])
    modes, left = [m.training for m in net.modules()], p.grad.unique().tolist()
    net.zero_grad(); net.eval()
    assert all(modes) and left == [7.] and all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())


def test_the_batch_does_not_matter(net):
    exact = deepcopy(net).double()
    for name in ("fgsm_random_start", "square"):
        whole, alone = (attack_inpainter(exact, IMAGES.double(), MASKS.double(), FEW[name], chunk=chunk, log=GradientHealth()) for chunk in (3, 1))
        assert (whole == alone).double().mean() > .999, name


def test_nothing_in_the_hole_can_matter(net):
    with frozen(net): grad = value_and_grad(IMAGES, inpainting_objective(net, MASKS, IMAGES))[1]
    assert not (grad*MASKS).any() and (grad*(1 - MASKS)).any()


def test_own_fill_has_no_gradient_at_the_clean_picture(net):
    with pytest.warns(GradientWarning, match="exactly zero"): still = attack_inpainter(net, IMAGES, MASKS, "fgsm", kind="own")
    moved = attack_inpainter(net, IMAGES, MASKS, "fgsm_random_start", kind="own", log=GradientHealth())
    assert torch.equal(still, attack_inpainter(net, IMAGES, MASKS, "none")) and not torch.equal(moved, still)


def test_scores_and_worst_case(net):
    trial = Trial(net, IMAGES, MASKS, steps=10, queries=8)
    attacked = {k: trial.inputs[k] for k in ("clean", "random", "fgsm", "pgd", "square")}
    worst = worst_case(attacked, trial.error)
    assert (worst.score >= worst.scores).all() and torch.allclose(trial.error(worst.x), worst.score, rtol=1e-4)
    values = score_attacked(net, IMAGES, MASKS, worst.x)
    assert {k[:2] for k in values} == {("composite", "clean"), ("composite", "attacked"), ("raw", ""), ("hole", "")}
    assert torch.allclose(psnr(trial.painted(worst.x).clamp(0, 1), IMAGES, MASKS), values["hole", "", "psnr"], atol=1e-3)


def test_what_is_scored_is_what_a_user_gets(trial):
    "Whatever the network: attacked, it is scored by what `inpaint` gives on the attacked picture, in whatever chunks."
    net, attacked, sampling = trial.subject, trial.inputs["pgd"], dict(samples=3, seed=1) if isinstance(trial.subject, ConditionalGlow) else {}
    filled = net.inpaint(attacked, trial.mask, **sampling | (dict(first=0) if sampling else {}))
    assert torch.equal(public_fill(net, attacked, trial.mask, **sampling | (dict(first=0) if sampling else {})), filled)
    for chunk in (2, 50):
        values = score_attacked(net, IMAGES, trial.mask, attacked, chunk, **sampling)
        assert torch.allclose(psnr(filled, IMAGES, trial.mask), values["hole", "", "psnr"], atol=1e-2)
        assert torch.allclose(psnr(filled, IMAGES), values["composite", "attacked", "psnr"], atol=1e-2)


def test_pictures_of_another_float_type(net):
    with warnings.catch_warnings(): warnings.simplefilter("ignore", GradientWarning); attacked = attack_inpainter(net, IMAGES.double(), MASKS, "fgsm")
    assert attacked.dtype == torch.float64 and (attacked - torch.where(MASKS > .5, .5, IMAGES.double())).abs().max() <= EIGHT + 1e-6


def test_values_that_are_no_numbers_are_counted(net):
    class Explosive(Inpainter):
        multiple = net.multiple
        def __init__(self): super().__init__(); self.net = net
        def forward(self, x, mask): return {"fine": net(x, mask)["fine"].masked_fill(mask > .5, torch.nan)}
    values = score_attacked(Explosive(), IMAGES, MASKS, IMAGES)
    assert torch.equal(values["raw", "", "nonfinite"], 3*MASKS.sum((1, 2, 3))) and torch.equal(values["hole", "", "nonfinite"], 3*MASKS.sum((1, 2, 3)))
    half = torch.full_like(IMAGES, .5)
    assert torch.equal(values["hole", "", "psnr"], psnr(half, IMAGES, MASKS))      # .5 is scored
    finding = CHECKS["finite"](Trial(Explosive(), IMAGES, MASKS, steps=1, queries=2))
    assert not finding.passed and "3 of 3 after clean" in finding.words


SABOTAGE = dict(quantised=("gradient", lambda y: (9*y).round()/9), detached=("gradient", lambda y: y.detach()),
                saturated=("saturation", lambda y: torch.sigmoid(1e4*(y - y.mean()))), noisy=("repeatable", lambda y: y + .05*torch.randn_like(y)))


@pytest.mark.parametrize("kind", SABOTAGE)
def test_sabotage_is_found(net, kind):
    check, spoil = SABOTAGE[kind]
    class Sabotaged(Inpainter):
        multiple = net.multiple
        def forward(self, x, mask): return {"fine": spoil(net(x, mask)["fine"])}
    with seeded(0): assert not CHECKS[check](Trial(Sabotaged(), IMAGES, MASKS, steps=2, queries=4)).passed


@pytest.mark.parametrize("attack", ["fgsm", "fgsm_random_start", "pgd"])
def test_trains_on_attacked_pictures(net, attack):
    gen, how = lambda: torch.Generator().manual_seed(3), dict(attack=attack, pgd_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # partial convolution says that it has no VGG features
        loss = robust_loss(**how)(net.train(), IMAGES, gen())
        loss.backward()
    learns = [p.grad is not None for p in net.parameters()]
    net.zero_grad(); net.eval()
    assert loss.isfinite() and all(learns)


def test_monitor(net):
    values = robustness_monitor(IMAGES, steps=2)(net, 0)
    assert values["pgd_objective"] >= max(values["fgsm_objective"], values["clean_objective"]) and values["zero_gradient"] < .5 and abs(values["cosine"]) <= 1 + 1e-6
