"""The presets that stand for public code, against a short expression of that code's arithmetic in plain torch, on the same weights."""
import math

import torch
import torch.nn.functional as F

from inpaint_nb.attention import contextual_attention, valid_keys
from inpaint_nb.cglow import ConditionalGlow
from inpaint_nb.dam import DAMBlock
from inpaint_nb.damgan import DAMGAN
from inpaint_nb.gan import GanObjective, discriminator


def normed(conv):
    "A spectrally normalised layer's weight as published: the raw one over u' W v, with the stored vectors."
    part = conv.parametrizations.weight
    raw, vectors = part.original, part[0]
    return raw/(vectors._u @ raw.flatten(1) @ vectors._v)


def convolved(conv, x, padding=1):
    return F.conv2d(x, normed(conv), conv.bias, conv.stride, padding*conv.dilation[0], conv.dilation)


def public_block(block, below, skip):
    "DAM-GAN's released block: four normalised 3x3 convolutions, an ELU after all but the map's last, clamps."
    features = F.elu(convolved(block.join, torch.cat([below, skip], 1)))
    inner = F.elu(convolved(block.hidden, features)).clamp(-1, 1)
    fakeness = convolved(block.map, inner).sigmoid()
    amplified = F.leaky_relu(features, .2)*fakeness + features
    return F.elu(convolved(block.out, amplified)).clamp(-1, 1), fakeness


def public_residual(r, x):
    mirrored = lambda t: F.pad(t, (1, 1, 1, 1), mode="reflect")
    h = F.conv2d(mirrored(x), r.first.weight, r.first.bias)
    h = F.relu(F.batch_norm(h, r.norm.running_mean, r.norm.running_var, r.norm.weight, r.norm.bias, eps=1e-5))
    return x + F.conv2d(mirrored(h), r.second.weight, r.second.bias)


def public_damgan(net, x, mask):
    "Both stages over [-1, 1]: the raw clamped coarse picture is what the second one gets."
    context = torch.cat([torch.ones_like(mask), mask], 1)
    plain = lambda layer, t: F.elu(convolved(layer[0], t, layer[0].kernel_size[0]//2))
    h, layers = torch.cat([2*x*(1 - mask) - (1 - mask), context], 1), list(net.coarse)
    for layer in layers[:-1]: h = F.interpolate(h, scale_factor=2) if isinstance(layer, torch.nn.Upsample) else plain(layer, h)
    coarse = convolved(layers[-1], h).clamp(-1, 1)
    h, stage, skips, maps = torch.cat([coarse, context], 1), net.stage, [], []
    for down, encode in zip(stage.down, stage.encode): skips.append(h := public_residual(encode, plain(down, h)))
    for layer, dilation in zip(stage.middle[:4], (2, 4, 8, 16)):
        assert layer[0].dilation == (dilation, dilation)
        h = plain(layer, h)
    h = public_residual(stage.middle[4], h)
    for i in (3, 2, 1, 0):
        h, fakeness = public_block(stage.blocks[i], public_residual(stage.decode[i], h), skips[i])
        maps.append(fakeness)
        if i: h = F.interpolate(h, scale_factor=2)
    return coarse, h, maps[::-1]


def scene(size=64):
    g = torch.Generator().manual_seed(5)
    x, mask = torch.rand(2, 3, size, size, generator=g), torch.zeros(2, 1, size, size)
    mask[0, :, 8:40, 20:50] = 1; mask[1, :, 30:, :25] = 1
    return x, mask


def settled(net):
    "Evaluation mode after a pass in training mode, with batch statistics that are not those of the start."
    with torch.no_grad(): net(*scene())
    return net.eval()


def test_damgan_released_block_by_hand():
    "One channel, one pixel, every weight 1 after normalisation, no bias: F = elu(join), M = sigmoid(elu(F)), out = elu(F + M leaky(F))."
    block = DAMBlock(1, 1, 1, "released")
    for conv in (block.join, block.hidden, block.map, block.out):
        with torch.no_grad():
            conv.parametrizations.weight.original.zero_()[..., 1, 1] = 3.; conv.bias.zero_()
            for _ in range(20): conv.weight
    give = lambda a, b: [v.item() for v in block.eval()(torch.full((1, 1, 1, 1), a), torch.full((1, 1, 1, 1), b))]
    root = 2**.5                            # the first convolution has two equal weights, so each is 1/sqrt(2)
    for a, b, wanted in ((.1*root, .2*root, [.3*(1 + .574443), .574443]),          # sigmoid(.3) = .574443
                         (-.5*root, -.5*root, [-.493783, .384963])):               # F = e^-1 - 1 = -.632121, M = sigmoid(e^F - 1), out = e^(1.076993 F) - 1
        assert torch.allclose(torch.tensor(give(a, b)), torch.tensor(wanted), atol=2e-4)
    assert give(5*root, 5*root)[0] == 1.    # clamped


def test_damgan_released_network_is_the_public_one():
    torch.manual_seed(0)
    net, (x, mask) = settled(DAMGAN(8, 64, "released")), scene()
    with torch.no_grad(): ours, (coarse, fine, maps) = net(x, mask), public_damgan(net, x, mask)
    for name, theirs in (("coarse", coarse), ("fine", fine)): assert torch.allclose(2*ours[name] - 1, theirs, atol=1e-6)
    for m, theirs in zip(ours["maps"], maps, strict=True): assert torch.allclose(m, theirs, atol=1e-6)
    assert sum(p.numel() for p in DAMGAN(32, 128, "released").parameters()) == 11_957_690
    assert DAMGAN(2, 64, "released").revision == 2 and DAMGAN(2, 64).revision == 1


def test_damgan_released_losses_are_the_public_ones():
    "Values and gradients in both pictures and all maps; stand-in features see pictures in [-1, 1]."
    class Features(torch.nn.Module):
        def forward(self, x): return [x.square(), x[:, :1]]
    (x, mask), g = scene(), torch.Generator().manual_seed(6)
    fine, coarse = (torch.rand(x.shape, generator=g, requires_grad=True) for _ in range(2))
    maps = [torch.rand(2, 1, 64//2**i, 64//2**i, generator=g, requires_grad=True) for i in range(4)]
    ours = DAMGAN(2, 64, "released", features=Features()).losses(dict(coarse=coarse, fine=fine, maps=maps), x, mask)
    gt, first, last, known = 2*x - 1, 2*coarse - 1, 2*fine - 1, 1 - mask
    filled = last*mask + gt*known
    l1 = lambda a, b: (a - b).abs().mean()
    theirs = dict(reconstruction=1.2*(1.2*l1(first*known, gt*known) + l1(last*known, gt*known)),
                  dam=.001*sum((m*F.interpolate(known, m.shape[-2:])).abs().mean() for m in maps),
                  perceptual=.01*(l1(filled.square(), gt.square()) + l1(filled[:, :1], gt[:, :1])))
    grads = lambda terms: torch.autograd.grad(sum(terms.values()), [fine, coarse, *maps], retain_graph=True)
    for name, value in theirs.items(): assert torch.allclose(ours[name], value, atol=1e-6), name
    for a, b in zip(grads(ours), grads(theirs)): assert torch.allclose(a, b, atol=1e-7)


def test_damgan_released_critic_and_penalty_are_the_public_ones():
    torch.manual_seed(0)
    critic, (x, mask) = discriminator("damgan", 64, 4).eval(), scene()
    def public_critic(pictures):                                     # in [-1, 1], without a mask
        h = pictures
        for i in range(7):
            conv = critic.tower[2*i]
            h = F.leaky_relu(F.conv2d(h, normed(conv), conv.bias, 1 + i % 2, 1), .2)
        return F.linear(h.flatten(1), normed(critic.linear), critic.linear.bias)
    assert torch.allclose(critic(x, mask), public_critic(2*x - 1), atol=1e-6)
    fine = torch.rand(x.shape, generator=torch.Generator().manual_seed(7))
    seed = lambda: torch.Generator().manual_seed(8)
    ours = GanObjective("wgan-whole").of_critic(critic, x, torch.where(mask > 0, fine, x), mask, seed())
    t = torch.rand(2, 1, 1, 1, generator=seed())
    real, fake = 2*x - 1, 2*torch.where(mask > 0, fine, x) - 1
    between = ((1 - t)*real + t*fake).requires_grad_()
    slope, = torch.autograd.grad(public_critic(between).sum(), between, create_graph=True)
    theirs = (public_critic(fake) - public_critic(real)).mean() + 10*(slope.flatten(1).norm(dim=1) - 1).square().mean()
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert sum(p.numel() for p in discriminator("damgan", 128).parameters()) == 3_058_753
    assert DAMGAN(2, 64, "released").adversarial == dict(loss="wgan-whole", weight=.001, discriminator="damgan", steps=1)


def public_cglow(model, x, y):
    "c-Glow's released log-density, (B,), in nats: logs and means by one tanh, 2x2 strided convolutions, whole 1x1 matrices."
    def numbers(net, h):
        for conv in net.net[:6:2]: h = F.relu(F.conv2d(h, conv.weight, conv.bias, stride=2))
        h = h.flatten(1)
        for linear in net.net[7:11:2]: h = F.relu(F.linear(h, linear.weight, linear.bias))
        return torch.tanh(F.linear(h, net.net[11].weight, net.net[11].bias))
    gaussian = lambda v, mean, logs: (-.5*(2*logs + (v - mean).square()/(2*logs).exp() + math.log(2*math.pi))).sum((1, 2, 3))
    h, total = y - .5, 0.
    for level, split in zip(model.flow.levels, model.flow.splits):
        b, c, height, width = h.shape
        h = h.view(b, c, height//2, 2, width//2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4*c, height//2, width//2)
        pixels, half = height*width//4, 2*c
        for norm, mixing, coupling in zip(*[iter(level.layers[1:])]*3):
            bias, logs = numbers(norm.net, x)[:, :, None, None].chunk(2, 1)
            h, total = (h + bias)*logs.exp(), total + pixels*logs.sum((1, 2, 3))
            w = numbers(mixing.net, x).view(b, 4*c, 4*c)
            h, total = torch.einsum("bij,bjhw->bihw", w, h), total + pixels*torch.linalg.slogdet(w)[1]
            first, second = h[:, :half], h[:, half:]
            f, net = coupling.features, coupling.net
            seen = F.relu(F.conv2d(x, f[0].weight, f[0].bias, padding=1))
            seen = F.relu(F.conv2d(seen, f[2].weight, f[2].bias, stride=f[2].stride))
            seen = F.relu(F.conv2d(seen, f[4].weight, f[4].bias, padding=1))
            k = F.conv2d(torch.cat([seen, first], 1), torch.cat([net.project.weight, net.first.weight], 1), padding=1)
            k = F.relu((k + coupling.shifts[0])*coupling.scales[0].exp())
            k = F.relu((F.conv2d(k, net.middle.weight) + coupling.shifts[1])*coupling.scales[1].exp())
            k = torch.tanh((F.conv2d(k, net.last.weight, net.last.bias, padding=1) + coupling.again)*(3*coupling.logs).exp())
            scale = torch.sigmoid(k[:, :half] + 2)
            h, total = torch.cat([first, (second + k[:, half:])*scale], 1), total + scale.log().sum((1, 2, 3))
        if not split.kept: return total + gaussian(h, torch.zeros(()).to(h), torch.zeros(()).to(h).expand_as(h))
        mean, logs = torch.tanh(F.conv2d(h[:, :half], split.net.weight, split.net.bias, padding=1)).chunk(2, 1)
        h, total = h[:, :half], total + gaussian(h[:, half:], mean, logs)


def test_cglow_released_is_the_public_one():
    "The same likelihood with every parameter stirred, in float64; the public code's number of parameters is tested in 11_cglow."
    torch.manual_seed(0)
    model = ConditionalGlow(32, 16, "released", steps=2, widths=(8, 8, 8)).double().eval()
    with torch.no_grad():
        for p in model.parameters(): p.add_(.1*torch.randn_like(p))
        x, y = torch.rand(3, 3, 32, 32).double(), torch.rand(3, 3, 16, 16).double()
        assert torch.allclose(-model.nll(x, y), public_cglow(model, x, y), rtol=1e-12, atol=0)


def test_cglow_released_starts_as_the_public_one():
    "Zero, or the deviation of each kind of layer's weights."
    torch.manual_seed(0)
    model = ConditionalGlow(32, 16, "released", steps=4, widths=(64, 64, 64))
    spread = lambda kind, *part: torch.cat([p.flatten() for name, p in model.named_parameters() if kind in name and any(n in name for n in part)]).std().item()
    assert spread("net.net.", *[f".{i}.weight" for i in (0, 2, 4, 7, 9)]) == 0                                   # trunk and linear layers
    assert spread("features", ".2.weight") == 0 and spread("net.last", "") == 0                                  # patch convolution, last of the coupling
    assert abs(spread("features", ".0.weight", ".4.weight") - .1) < .005 and abs(spread("splits", "net.weight") - .1) < .005
    assert abs(spread("net.", "first.weight", "project.weight", "middle.weight") - .05) < .002 and abs(spread("s", "shifts", "scales") - .05) < .005
    matrices = torch.cat([p.flatten() for name, p in model.named_parameters() if name.endswith("net.net.11.bias") and p.numel() % 144 == 0])
    assert abs(matrices.std().item() - .1) < .01


def public_attention(f, b, mask):
    "The TensorFlow layer: nearest with aligned corners, keys over max(|k|, 1e-4), one mask for all, masked scores at 0, pasted patches over 4."
    def nearest(x, *sides):
        rows, cols = ([int(i*(n - 1)/(m - 1) + .5) for i in range(m)] for n, m in zip(x.shape[-2:], sides))
        return x[..., rows, :][..., cols]
    (H, W), (h, w) = b.shape[-2:], (b.shape[-2]//2, b.shape[-1]//2)
    small, (rows, cols) = nearest(f, f.shape[-2]//2, f.shape[-1]//2), (f.shape[-2]//2, f.shape[-1]//2)
    keys = F.unfold(nearest(b, h, w), 3, padding=1)
    scores = F.unfold(small, 3, padding=1).transpose(1, 2) @ (keys/keys.norm(dim=1, keepdim=True).clamp_min(1e-4))
    diagonal = lambda s: F.conv2d(s[:, None], torch.eye(3).to(s)[None, None], padding=1)[:, 0]
    turned = lambda s, a, b, c, d: s.view(-1, a, b, c, d).permute(0, 2, 1, 4, 3).reshape(-1, a*b, c*d)
    scores = turned(diagonal(turned(diagonal(scores), rows, cols, h, w)), cols, rows, w, h)
    clean = (F.unfold(nearest(nearest(mask[:1], H, W), h, w), 3, padding=1).mean(1) == 0).to(f)[:, None]
    weights = (10*scores*clean).softmax(-1)*clean
    return F.fold(F.unfold(b, 4, padding=1, stride=2) @ weights.transpose(1, 2), f.shape[-2:], 4, padding=1, stride=2)/4


def test_official_attention_is_the_public_one():
    "Values and gradients in float64, on features that are not square, with one key shorter than 1e-4."
    g = torch.Generator().manual_seed(1)
    f, b = (torch.randn(2, 3, *sides, generator=g, dtype=torch.float64).div(3).requires_grad_() for sides in ((16, 12), (20, 12)))
    with torch.no_grad(): b[:, :, 14:, :6] *= 1e-6
    mask = torch.zeros(2, 1, 80, 48); mask[0, :, 20:41, 9:27] = 1; mask[1] = 1
    pair = [attend(f, b, mask.double()) for attend in (lambda *a: contextual_attention(*a, preset="official"), public_attention)]
    assert torch.allclose(*pair, atol=1e-12)
    grads = [torch.autograd.grad(out.square().sum(), (f, b)) for out in pair]
    for ours, theirs in zip(*grads): assert torch.allclose(ours, theirs, atol=1e-9, rtol=1e-9)
    assert valid_keys(mask, (10, 6), preset="official")[0].sum() not in (0, 60)
