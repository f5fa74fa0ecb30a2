"""Heads: identities and claims of the literature, and the tutorial's net with a head in place of its flatten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from poolkit.lab.footprint import largest_array  # noqa: E402
from poolkit.lab.head_memory import measured  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.torch import Head, pool_parameters  # noqa: E402


def cells(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_bilinear_is_the_sum_of_outer_products() -> None:
    x = cells(2, 3, 4, 5)
    want = torch.einsum("nihw,njhw->nij", x, x).flatten(1)
    torch.testing.assert_close(Head("bilinear:normalize=false")(x), want)
    root = nn.functional.normalize(want.sign() * want.abs().sqrt())
    torch.testing.assert_close(Head("bilinear")(x), root, rtol=0, atol=1e-7)


def test_pairs_of_channels_that_never_fire_together_have_a_finite_gradient() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, 0, 0, 0] = x[0, 1, 1, 1] = 1.0
    x.requires_grad_()
    Head("bilinear")(x)[0, 1].backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


@pytest.mark.parametrize("sketch", ["tensor", "maclaurin"])
@pytest.mark.parametrize("size", [1, 2])
def test_sketches_keep_the_squared_product_on_average(sketch: str, size: int) -> None:
    """E⟨φ(x), φ(z)⟩ = Σ ⟨xₗ, zₖ⟩² over the pairs of cells, within three standard errors of 600 sketches.

    One cell goes by the cells' Fourier transforms (C² > d), four by the pairs of channels.
    """
    d = 12
    x, z = cells(2, 5, size, size, seed=3).unbind()
    want = torch.einsum("ci,cj->ij", x.flatten(1), z.flatten(1)).square().sum().item()
    layer, found = Head(f"compact-bilinear:d={d},sketch={sketch},normalize=false", 5).double(), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(600):
            layer.reset_parameters()
            found.append((layer(x) * layer(z)).sum())
    every = torch.stack(found)
    assert abs(every.mean().item() - want) < 3 * every.std().item() / len(found) ** 0.5
    assert every.std() > 0.05 * want


def test_a_checkpoint_holds_the_sketches() -> None:
    x, layer, other = cells(2, 6, 3, 3), Head("compact-bilinear:d=16", 6), Head("compact-bilinear:d=16", 6)
    assert not list(layer.parameters()) and {"place1", "place2", "sign1", "sign2"} == set(layer.state_dict())
    assert not torch.allclose(layer(x), other(x))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))


def test_both_ways_to_a_tensor_sketch_are_one() -> None:
    from poolkit.map_layers import WORDS
    from poolkit.map_method import Map
    from poolkit.method import Values
    from poolkit.methods.compact_bilinear import _of_cells, _of_pairs

    layer = Head("compact-bilinear:d=10", 6).double()
    m, p = Map(cells(3, 6, 4, 5), WORDS), Values(d=10, **layer.weights())
    torch.testing.assert_close(_of_cells(m, p), _of_pairs(m, p))


def test_isqrt_squared_is_the_covariance() -> None:
    x = cells(2, 4, 6, 6)
    cov = torch.stack([torch.cov(one.flatten(1), correction=0) for one in x])
    for iterations, slack in ((30, 1e-10), (5, 0.05)):
        y = symmetric(Head(f"isqrt-cov:iterations={iterations}")(x), 4)
        torch.testing.assert_close(y @ y, cov, rtol=0, atol=slack)
    assert (Head("isqrt-cov")(torch.ones(1, 4, 3, 3)) == 0).all()


def test_netvlad_is_its_residual_form_and_starts_as_a_softmax_of_distances() -> None:
    x, layer = cells(2, 5, 4, 4), Head("netvlad:clusters=3,ghosts=2,alpha=1.5", 5).double()
    c, columns = layer.centres, x.flatten(2)
    columns = (columns / (columns.square().sum(1, keepdim=True) + 1e-6).sqrt()).mT[:, :, None]  # (N, cells, 1, C)
    shares = (-1.5 * (columns - c).square().sum(3)).softmax(2)
    v = (shares[..., None] * (columns - c)).sum(1)[:, :3]
    want = nn.functional.normalize(nn.functional.normalize(v, dim=2).flatten(1))
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-9)
    assert len(list(pool_parameters(layer))) == 3


@pytest.mark.parametrize(
    ("spelling", "most"), [("netvlad", 64 * 512), ("compact-bilinear:d=8192", 512 * 512), ("bilinear", 512 * 512)]
)
def test_no_array_is_larger_than_the_input_or_the_pairs(spelling: str, most: int) -> None:
    """At 512×28×28, forward and backward: far from K·C·cells (netvlad 26 million numbers) or cells·d (6 million)."""
    x, layer = torch.rand(1, 512, 28, 28, requires_grad=True), Head(spelling, 512)
    assert 0 < largest_array(lambda: layer(x).sum().backward()) <= max(4 * x.numel(), 8 * most)  # an index has 8 bytes


def test_the_largest_array_is_seen_in_the_residual_form() -> None:
    """What the test above would say of a netvlad that forms its residuals."""
    x, layer = torch.rand(1, 16, 6, 6, requires_grad=True), Head("netvlad:clusters=8", 16)
    shares = torch.rand(1, 8, 36)

    def residuals() -> None:
        off = x.flatten(2)[:, None] - layer.centres[None, :, :, None]
        (shares[:, :, None] * off).sum(3).sum().backward()

    assert largest_array(residuals) == 4 * 8 * 16 * 36 > largest_array(lambda: layer(x).sum().backward())


def test_memory_is_counted_for_heads_and_map_methods() -> None:
    found = measured(["netvlad:clusters=4", "blur", "spp"], (2, 8, 8, 8))
    assert found["input"] == 4 * 2 * 8 * 8 * 8 and [r["method"] for r in found["rows"]] == [
        "netvlad:clusters=4",
        "blur",
        "spp",
    ]
    netvlad = found["rows"][0]
    assert found["input"] <= netvlad["largest"] <= netvlad["peak"] and netvlad["kept"] > 0
    for spelling, why in (
        ("max", "poolkit bench --method max"),
        ("superpixel", "wants labels"),
        ("attention:heads=3", "multiple"),
    ):
        with pytest.raises(ValueError, match=why):
            measured([spelling], (2, 8, 8, 8))


def test_masked_cells_do_not_count_whatever_they_hold() -> None:
    x, layer = cells(3, 4, 6), Head("mil-attention:width=5,gated=true", 4, dims=1).double()
    mask = torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(layer(x), layer(x, mask))
    mask[1, 4:] = mask[2, :] = False
    x[1, :, 4:] = float("nan")
    y = layer(x, mask)
    torch.testing.assert_close(y[1], layer(x[1, :, :4]))
    assert torch.equal(layer(x, mask.double()), y) and (y[2] == 0).all()


def test_simpool_does_not_look_at_the_rest_of_its_batch() -> None:
    x, layer = cells(2, 4, 3, 3), Head("simpool", 4).double()
    x[1] -= 100.0
    torch.testing.assert_close(layer(x)[0], layer(x[0]))
    layer = Head("simpool:gamma=1", 4).double()
    with torch.no_grad():
        layer.query.zero_()  # no cell is preferred: the mean of the normalised cells
    want = nn.functional.layer_norm(x.movedim(1, 3), (4,)).mean((1, 2))
    torch.testing.assert_close(layer(x), want)


def test_attention_is_torchs_and_takes_maps_of_other_sizes() -> None:
    x, layer, theirs = cells(2, 8, 3, 5), Head("attention", 8, (3, 5)).double(), nn.MultiheadAttention(8, 4).double()
    with torch.no_grad():
        for name in ("query", "value", "project"):
            getattr(layer, f"{name}_bias").normal_()
        theirs.in_proj_weight.copy_(torch.cat([layer.query, layer.key, layer.value]))
        theirs.in_proj_bias.copy_(torch.cat([layer.query_bias, torch.ones(8), layer.value_bias]))
        theirs.out_proj.weight.copy_(layer.project)
        theirs.out_proj.bias.copy_(layer.project_bias)
    columns = x.flatten(2).permute(2, 0, 1)
    t = torch.cat([columns.mean(0, keepdim=True), columns])
    t = t + torch.cat([layer.position[None], layer.positions.flatten(1).T])[:, None]
    torch.testing.assert_close(layer(x), theirs(t[:1], t, t)[0][0])
    other = Head("attention", 8, (6, 4)).double()
    state = layer.state_dict()
    state["positions"] = nn.functional.interpolate(layer.positions.detach()[None], (6, 4), mode="bilinear")[0]
    other.load_state_dict(state)
    torch.testing.assert_close(layer(cells(2, 8, 6, 4)), other(cells(2, 8, 6, 4)))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        Head("attention", 8)


def symmetric(y: torch.Tensor, c: int) -> torch.Tensor:
    """The symmetric matrices whose upper triangles are the rows of y."""
    upper, full = torch.triu_indices(c, c), y.new_zeros(len(y), c, c)
    full[:, upper[0], upper[1]] = y
    return full + full.triu(1).mT


def test_mpn_squared_is_the_covariance_and_isqrt_comes_near_to_it() -> None:
    x = cells(2, 4, 6, 6)
    cov = torch.stack([torch.cov(one.flatten(1), correction=0) for one in x])
    y = symmetric(Head("mpn-cov")(x), 4)
    torch.testing.assert_close(y @ y, cov, rtol=0, atol=1e-9)
    torch.testing.assert_close(Head("isqrt-cov:iterations=30")(x), Head("mpn-cov")(x), rtol=0, atol=1e-8)
    assert (Head("mpn-cov")(torch.ones(1, 4, 3, 3)).abs() < 1e-9).all()


def test_mpns_gradient_is_right_at_equal_eigenvalues() -> None:
    """Orthogonal channels of one size: the covariance is a multiple of the identity, and eigenvectors are arbitrary."""
    x = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)[None].requires_grad_()
    layer = Head("mpn-cov", dims=1)
    torch.testing.assert_close(symmetric(layer(x), 3)[0], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.autograd.gradcheck(layer, (x,)) and torch.autograd.gradgradcheck(layer, (x,))
    few = cells(1, 6, 3).requires_grad_()  # fewer cells than channels: eigenvalues that are 0
    layer(few).square().sum().backward()
    assert few.grad.isfinite().all() and few.grad.abs().max() < 100


def test_r_mac_is_its_regions_by_hand() -> None:
    x = cells(1, 3, 6, 9).abs()
    unit = nn.functional.normalize
    squares = [(6, (0,), (0, 3)), (4, (0, 2), (0, 2, 5)), (3, (0, 1, 3), (0, 2, 4, 6))]
    regions = [
        x[:, :, i : i + w, j : j + w].amax((2, 3)) for w, rows, columns in squares for i in rows for j in columns
    ]
    torch.testing.assert_close(Head("r-mac")(x), unit(torch.stack([unit(r) for r in regions]).sum(0)))
    regions.append(x.amax((2, 3)))
    torch.testing.assert_close(Head("r-mac:whole=true")(x), unit(torch.stack([unit(r) for r in regions]).sum(0)))
    square = cells(2, 3, 5, 5)
    torch.testing.assert_close(Head("r-mac:levels=1")(square), unit(square.amax((2, 3))))


def test_maps_where_nothing_fires_have_a_finite_gradient_in_half_precision() -> None:
    for name in ("r-mac", "crow"):
        for scale in (0.0, 6e-8, 1e-5, 6e4):
            x = (scale * torch.rand(1, 64, 9, 9)).half().requires_grad_()
            y = Head(name)(x)
            y.float().sum().backward()
            assert y.isfinite().all() and x.grad.isfinite().all(), (name, scale)


def test_crow_by_hand() -> None:
    """Two cells and two channels; the second channel fires in one cell, the cells' sums are 3 and 4."""
    x = torch.tensor([[[2.0, 4.0], [1.0, 0.0]]], dtype=torch.float64)
    rare = torch.tensor([1.5 / 1.0, 1.5 / 0.5], dtype=torch.float64).log()
    want = rare * (x * torch.tensor([3 / 5, 4 / 5], dtype=torch.float64).sqrt()).sum(2)
    torch.testing.assert_close(Head("crow:normalize=false", dims=1)(x), want, rtol=1e-5, atol=0)
    torch.testing.assert_close(Head("crow", dims=1)(x), nn.functional.normalize(want), rtol=1e-5, atol=0)


def test_latent_attention_is_torchs_with_the_queries_handed_in() -> None:
    x, layer, theirs = cells(2, 8, 3, 5), Head("latent-attention:latents=3", 8).double(), nn.MultiheadAttention(8, 4)
    theirs.double()
    with torch.no_grad():
        layer.value_bias.normal_()
        layer.project_bias.normal_()
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(8), layer.key, layer.value]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(8), torch.ones(8), layer.value_bias]))
        theirs.out_proj.weight.copy_(layer.project)
        theirs.out_proj.bias.copy_(layer.project_bias)
    columns = x.flatten(2).permute(2, 0, 1)
    want = theirs(layer.queries[:, None].expand(3, 2, 8), columns, columns)[0]
    torch.testing.assert_close(layer(x), want.transpose(0, 1).flatten(1))


def digits(count: int) -> Any:
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    x = torch.tensor(found.images[:count, None], dtype=torch.float32) / 16
    return nn.functional.interpolate(x, (16, 16)), torch.tensor(found.target[:count])


HEADS_TRIED = [
    "bilinear",
    "compact-bilinear:d=512",
    "isqrt-cov",
    "mpn-cov",
    "netvlad:clusters=8",
    "mil-attention",
    "simpool",
    "attention",
    "latent-attention",
    "spoc",
    "r-mac",
    "crow",
]


@pytest.mark.parametrize("head", HEADS_TRIED)
def test_the_tutorials_net_learns_digits_with_it(head: str, one_thread: Any) -> None:
    from poolkit.lab.nets import build

    x, target = digits(48)
    net = build("tutorial", "max", (1, 16, 16), 10, 0, head)
    loss, optimiser = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), 5e-3)
    before = loss(net.eval()(x), target).item()
    for _ in range(16):
        optimiser.zero_grad()
        loss(net.train()(x), target).backward()
        optimiser.step()
    assert loss(net.eval()(x), target).item() < 0.95 * before


def test_a_run_with_a_head_is_trained_kept_and_read_again(tmp_path: Path) -> None:
    from poolkit.lab.run import Run
    from poolkit.lab.train import train
    from test_train import tiny

    data = tiny(n=48)
    made = train(Recipe(data=data.name, epochs=1, head="netvlad:clusters=4"), data, tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert run.recipe["head"] == "netvlad:clusters=4" and "head.centres" in run.state()
    x = torch.rand(2, *data.shape)
    assert torch.equal(run.model()(x), made.model()(x))


def test_the_command_passes_the_head_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit import cli
    from poolkit.lab import terminal

    class Asked(Exception):
        pass

    def caught(asked: Recipe, *rest: Any) -> None:
        raise Asked(asked.head)

    monkeypatch.setattr(terminal, "carry_out", caught)
    with pytest.raises(Asked, match="netvlad:clusters=4"):
        cli.app(["train", "--data", "digits", "--head", "netvlad:clusters=4"], standalone_mode=False)


def test_a_recipe_names_a_head_or_says_what_is_allowed() -> None:
    assert "head" not in Recipe().as_dict() and Recipe(head="netvlad:alpha=10").head == "netvlad"
    with pytest.raises(ValueError, match="max is a window method\n  allowed: flatten, bilinear"):
        Recipe(head="max")


@pytest.mark.parametrize("gamma", [8, 20, 100])
def test_simpool_with_a_large_power_has_finite_gradients(gamma: int) -> None:
    for x in (torch.zeros(2, 4, 3, 3), torch.randn(2, 4, 1, 1), torch.randn(2, 4, 5, 5)):
        layer = Head(f"simpool:gamma={gamma}", 4)
        x.requires_grad_()
        layer(x).sum().backward()
        assert all(bool(g.isfinite().all()) for g in (x.grad, *(p.grad for p in layer.parameters())))
