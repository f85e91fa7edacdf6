"Every network keeps the same promises: what it refuses, what it pads, what it leaves alone, and which inputs cannot matter."
import copy
import json
import warnings
from pathlib import Path

import pytest
import torch

from inpaint_nb.data import synthetic_faces
from inpaint_nb.inpainter import signed
from inpaint_nb.inpainter_training import NETWORKS, build
from inpaint_nb.masks import center_mask, freeform_mask
from inpaint_nb.training import load_weights

SMALL = dict(context_encoder=dict(size=64, width=8, bottleneck=32), contextual_attention=dict(width=8, size=64), partial=dict(width=8, levels=5),
             gated=dict(width=8, size=64), damgan=dict(width=4, size=64), glcic=dict(width=4, size=64), parallel=dict(width=4, size=64), l2=dict(width=8))
SIDE = 64


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    return build(request.param, SMALL[request.param]).eval()


@pytest.fixture
def images(): return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks(): return torch.cat([center_mask(SIDE, 32), freeform_mask(SIDE, batch=2, seed=1)])


def test_all_networks_are_tested(): assert SMALL.keys() == NETWORKS.keys()


WRONG = {   # what is handed over -> words of the error
    "signed images": (lambda x, m: (signed(x), m), "turn [-1, 1] into (x + 1)/2"),
    "bytes": (lambda x, m: (255*x, m), "divide bytes by 255"),
    "integers": (lambda x, m: ((255*x).byte(), m), "x.float()/255"),
    "grey images": (lambda x, m: (x[:, :1], m), "(B, 3, H, W)"),
    "alpha channel": (lambda x, m: (torch.cat([x, x[:, :1]], 1), m), "(B, 3, H, W)"),
    "array": (lambda x, m: (x.numpy(), m), "got ndarray"),
    "truth values": (lambda x, m: (x > .5, m), "torch.bool"),
    "mask without batch": (lambda x, m: (x, m[0]), "(B, 1, H, W)"),
    "no batch": (lambda x, m: (x[0], m[:1]), "shape (B, 3, H, W)"),
    "NaN in what is known": (lambda x, m: (torch.where(m > .5, x, torch.nan), m), "NaN"),
    "colour mask": (lambda x, m: (x, m.expand(-1, 3, -1, -1)), "(B, 1, H, W)"),
    "soft mask": (lambda x, m: (x, .5*m), "only 0 (known) and 1 (hole)"),
    "8-bit mask": (lambda x, m: (x, 255*m), "Divide an 8-bit mask by 255"),
    "NaN in the mask": (lambda x, m: (x, torch.where(m > .5, m, torch.nan)), "NaN"),
    "nothing known": (lambda x, m: (x, torch.ones_like(m)), "is the mask inverted?"),
    "no hole": (lambda x, m: (x, torch.zeros_like(m)), "is the mask inverted?"),
    "mask of another size": (lambda x, m: (x, m[..., :32, :32]), "mask is 32x32 but the images are 64x64"),
    "too few masks": (lambda x, m: (x, m[:2]), "2 masks for 3 images")}


@pytest.mark.parametrize("what", WRONG)
def test_refuses(net, images, masks, what):
    spoil, words = WRONG[what]
    with pytest.raises(ValueError) as error: net.inpaint(*spoil(images, masks))
    assert words in str(error.value)


def test_warns_of_an_inverted_mask(net, images):
    with pytest.warns(UserWarning, match="use 1 - mask"): net.inpaint(images, 1 - center_mask(SIDE, 8))


def test_known_pixels_are_untouched_and_the_hole_is_filled(net, images, masks):
    filled = net.inpaint(images, masks)
    assert torch.equal(filled*(1 - masks), images*(1 - masks))
    assert filled.min() >= 0 and filled.max() <= 1 and not torch.equal(filled, images)


def test_what_is_in_the_hole_cannot_matter(net, images, masks):
    for inside in (0., 1., torch.nan, 1e30): assert torch.equal(net.inpaint(torch.where(masks > .5, inside, images), masks), net.inpaint(images, masks))


def test_each_picture_has_its_own_mask(net, images, masks):
    alone = torch.cat([net.inpaint(images[i:i+1], masks[i:i+1]) for i in range(3)])
    assert torch.allclose(net.inpaint(images, masks), alone, atol=1e-5)


def test_one_mask_serves_all(net, images, masks):
    each, (stages, same) = masks[:1].expand(3, -1, -1, -1), [net(images, m) for m in (masks[:1], masks[:1].expand(3, -1, -1, -1))]
    assert torch.equal(net.inpaint(images, masks[:1]), net.inpaint(images, each)) and torch.equal(stages["fine"], same["fine"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # partial convolution says that it has no VGG features
        one, several = net.losses(stages, images, masks[:1]), net.losses(same, images, each)
    for name, term in several.items(): assert torch.allclose(one[name], term, rtol=1e-5), name


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("weights", FLOATS, ids=str)
def test_any_float_type_is_filled(net, masks, weights):
    "The fill has the pictures' type, whatever the weights'; weights and pictures of fewer digits change it a little."
    faces = synthetic_faces(3, SIDE)[0].float()/255
    other = copy.deepcopy(net).to(weights)
    for pictures in FLOATS:
        fill = other.inpaint(faces.to(pictures), masks)
        assert fill.dtype == pictures and fill.isfinite().all()
        assert (fill.double() - net.inpaint(faces, masks)).abs().mean() < (.004 if torch.bfloat16 in (weights, pictures) else .0004)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_dead_weights_are_refused(net, images, masks, bad):
    dead = copy.deepcopy(net)
    list(dead.parameters())[-1].data[0] = bad
    with pytest.raises(ValueError, match="holds NaN or infinity"): dead.inpaint(images, masks)


def test_sides_that_do_not_fit_are_refused_by_a_plain_call(net):
    with pytest.raises(ValueError, match="multiples of"): net(torch.rand(1, 3, SIDE - 1, SIDE), center_mask((SIDE - 1, SIDE), 32))


@pytest.mark.parametrize("network", NETWORKS)
def test_nonsense_sizes_are_refused(network):
    for name in set(SMALL[network]) | {"width"}:
        for wrong in (0, -8, 8.5, True):
            with pytest.raises(ValueError, match="whole number|power of 2|must be"): build(network, SMALL[network] | {name: wrong})


@pytest.mark.parametrize("height, width", [(61, 64), (50, 90), (7, 5)])
def test_any_size_is_padded_and_cropped_back(net, height, width):
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(2, 1, height, width); mask[..., 1:3, 2:4] = 1
    if isinstance(net, NETWORKS["context_encoder"]) and (height > SIDE or width > SIDE):
        with pytest.raises(ValueError, match="built for 64x64"): net.inpaint(x, mask)
        return
    filled = net.inpaint(x, mask)
    assert filled.shape == x.shape and torch.equal(filled*(1 - mask), x*(1 - mask))


def test_training_mode_survives(net, images, masks):
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    net.inpaint(images, masks)
    assert net.training and all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    net.eval()


def test_every_parameter_learns(net, images, masks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # partial convolution says that it has no VGG features
        sum(net.losses(net.train()(images, masks), images, masks).values()).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    net.zero_grad(); net.eval()
    assert still == []


def test_a_hole_beyond_the_training_is_warned_of_once():
    "A 64-pixel network knows from its record that its holes reached 16 pixels (the centre) or a little more (strokes)."
    file = next(path for path in sorted(Path(__file__).parents[1].glob("weights/l2-*.safetensors")))
    net = build("l2", json.loads(file.with_suffix(".json").read_text())["config"]["arguments"])
    load_weights(file, net)
    assert 16 <= net.trained_hole <= 20
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net.inpaint(torch.full((1, 3, 64, 64), .5), center_mask(64, 32)); assert not said
        for _ in range(2): net.inpaint(torch.full((1, 3, 128, 128), .5), center_mask(128, 64))
    assert len(said) == 1 and "32 pixels from anything known" in str(said[0].message)
