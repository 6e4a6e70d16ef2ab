"""Positions inside the model: every kind on cases small enough to check by hand, its size, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import patchpack as pp
from patchpack.errors import ConfigError, ShapeError
from patchpack.model import ViT, cross_entropy
from patchpack.model.interpolate import CONVENTIONS, Interpolation, resize_grid
from patchpack.model.positions import FactorizedPositions, GridPositions, JointPositions, RasterPositions, between
from patchpack.model.waves import FourierPositions, SinusoidalPositions
from patchpack.types import Grid

M, D = 6, 8  # max_len, width
SIGLIP2 = CONVENTIONS["siglip2"]

# what makes it, parameters by formula
WHOLE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "raster": (partial(RasterPositions, width=D, max_tokens=M * M), M * M * D),
    "joint": (partial(JointPositions, width=D, max_len=M), M * M * D),
    "grid": (partial(GridPositions, width=D, grid=(3, 4), how=SIGLIP2), 3 * 4 * D),
    "sum": (partial(FactorizedPositions, width=D, max_len=M), 2 * M * D),
    "product": (partial(FactorizedPositions, width=D, max_len=M, combine="product"), 2 * M * D),
    "stack": (partial(FactorizedPositions, width=D, max_len=M, combine="stack"), M * D),
    "sinusoidal": (partial(SinusoidalPositions, width=D), 0),
    "moco": (partial(SinusoidalPositions, width=D, moco=True), 0),
    "fourier": (partial(FourierPositions, width=D), D),
}
FRACTIONAL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "fractional sum": (partial(FactorizedPositions, width=D, max_len=M, fractional=True), 2 * M * D),
    "fractional product": (partial(FactorizedPositions, width=D, max_len=M, combine="product", fractional=True), 2 * M * D),
    "fractional stack": (partial(FactorizedPositions, width=D, max_len=M, combine="stack", fractional=True), M * D),
    "fractional sinusoidal": (partial(SinusoidalPositions, width=D, max_len=M, fractional=True), 0),
    "fractional fourier": (partial(FourierPositions, width=D, fractional=True), D),
}
KINDS = WHOLE | FRACTIONAL


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def ids_of(grid: tuple[int, int], scheme: pp.positions.PositionScheme | None = None) -> tuple[Tensor, Tensor]:
    """Position ids of all patches of one grid, and the grid beside each."""
    ids = torch.from_numpy((scheme or pp.positions.Absolute())(Grid(*grid)))
    return ids, torch.tensor(grid, dtype=torch.int32).expand(len(ids), 2)


def asked(kind: str, grid: tuple[int, int], module: nn.Module | None = None) -> Tensor:
    """``[rows · cols, D]``."""
    scheme = pp.positions.Fractional(centered=True) if kind in FRACTIONAL else pp.positions.Absolute()
    answer: Tensor = (module or KINDS[kind][0]())(*ids_of(grid, scheme))
    return answer


# --- of every kind


@pytest.mark.parametrize(("make", "parameters"), KINDS.values(), ids=KINDS)
def test_parameters(make: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(p.numel() for p in make().parameters()) == parameters


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_position_per_token_in_the_dtype_of_the_model(kind: str, dtype: torch.dtype) -> None:
    module = KINDS[kind][0]()
    exact = asked(kind, (2, 5), module.double())
    answer = asked(kind, (2, 5), module.to(dtype))
    assert answer.shape == (10, D)
    assert answer.dtype == dtype
    tolerance = {torch.float64: 0.0, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(answer.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_places_differ_and_are_told_by_ids_alone(kind: str) -> None:
    module = KINDS[kind][0]()
    scheme = pp.positions.Fractional(centered=True) if kind in FRACTIONAL else pp.positions.Absolute()
    ids, grids = ids_of((2, 5), scheme)
    answers = module(ids, grids)
    distances = torch.cdist(answers, answers) + torch.eye(10)
    assert distances.min() > 1e-3
    some = torch.tensor([7, 0, 3])
    torch.testing.assert_close(module(ids[some], grids[some]), answers[some])
    assert module(ids[:0], grids[:0]).shape == (0, D)


@pytest.mark.parametrize("kind", [kind for kind, (_, parameters) in KINDS.items() if parameters])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    module = KINDS[kind][0]()
    (asked(kind, (M, M), module) * torch.randn(M * M, D)).sum().backward()
    assert all(p.grad is not None and p.grad.all() for p in module.parameters())


@pytest.mark.parametrize("kind", [*WHOLE])
def test_a_fraction_is_no_row(kind: str) -> None:
    with pytest.raises(
        ShapeError, match=r"integer \(row, col\) pairs, got torch.float32 .* recipe with positions=Absolute\(\)"
    ):
        WHOLE[kind][0]()(*ids_of((2, 2), pp.positions.Fractional()))


@pytest.mark.parametrize("kind", [*FRACTIONAL])
def test_a_row_is_no_fraction(kind: str) -> None:
    with pytest.raises(ShapeError, match=r"as fractions, got torch.int32 .* recipe with positions=Fractional\(centered=True\)"):
        FRACTIONAL[kind][0]()(*ids_of((2, 2)))


@pytest.mark.parametrize("kind", [*KINDS])
def test_raster_ids_are_no_pairs(kind: str) -> None:
    with pytest.raises(ShapeError, match="with 1 per token"):
        KINDS[kind][0]()(*ids_of((2, 2), pp.positions.Raster()))


# --- tables


def test_raster_counts_along_the_rows_of_each_grid() -> None:
    positions = RasterPositions(width=D, max_tokens=9)
    ids = torch.tensor([[1, 0], [1, 0], [2, 2]])
    grids = torch.tensor([[2, 4], [3, 2], [3, 3]])
    assert torch.equal(positions(ids, grids), positions.table[[4, 2, 8]])


def test_raster_holds_tokens_not_sides() -> None:
    positions = RasterPositions(width=D, max_tokens=9)
    positions.check(torch.tensor([[[9, 1], [0, 0], [3, 3]]]))
    positions.check(torch.empty(0, 4, 2, dtype=torch.int32))
    with pytest.raises(ShapeError, match="max_tokens=9 positions cannot hold a grid of 10 patches"):
        positions.check(torch.tensor([[[3, 3], [5, 2]]]))


def test_joint_has_an_entry_for_every_pair() -> None:
    positions = JointPositions(width=D, max_len=4)
    ids, grids = ids_of((3, 4))
    assert torch.equal(positions(ids, grids).view(3, 4, D), positions.table[:3, :4])
    positions.check(torch.tensor([[[4, 4]]]))
    with pytest.raises(ShapeError, match="max_len=4 positions per axis cannot hold a grid of 5"):
        positions.check(torch.tensor([[[1, 5]]]))


def test_a_column_beyond_the_table_is_not_read_from_the_next_row() -> None:
    """What is left of the check in a compiled model, which does not look at values."""
    with pytest.raises(IndexError):
        JointPositions(width=D, max_len=4)(torch.tensor([[0, 4]]), torch.tensor([[1, 5]]))


@pytest.mark.parametrize("combine", ["sum", "product", "stack"])
def test_row_and_column_are_combined(combine: Any) -> None:
    positions = FactorizedPositions(width=D, max_len=M, combine=combine)
    row, col = positions.rows[2], positions.cols[5]
    expected = {"sum": row + col, "product": row * col, "stack": torch.cat([row, col.clone()])}[combine]
    assert torch.equal(positions(torch.tensor([[2, 5]]), torch.tensor([[6, 6]]))[0], expected)


@pytest.mark.parametrize("combine", ["sum", "product", "stack"])
def test_all_ways_to_combine_begin_about_as_large(combine: Any) -> None:
    positions = FactorizedPositions(width=256, max_len=64, combine=combine)
    spread = positions(*ids_of((64, 64))).std().item() * 256**0.5
    assert 0.8 < spread < 1.6


def test_pix2struct_counts_from_one() -> None:
    """A row table and a column table of 4096 entries each, 0 for padding."""
    positions = FactorizedPositions(width=4, max_len=4096, first=1)
    assert sum(p.numel() for p in positions.parameters()) == 2 * 4096 * 4
    far = torch.tensor([[0, 4094]])
    assert torch.equal(positions(far, far)[0], positions.rows[1] + positions.cols[4095])
    positions.check(torch.tensor([[[1, 4095]]]))
    with pytest.raises(ShapeError, match="max_len=4095 positions per axis cannot hold a grid of 4096"):
        positions.check(torch.tensor([[[1, 4096]]]))


@pytest.mark.parametrize("how", [*CONVENTIONS.values()], ids=[*CONVENTIONS])
@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (2, 9), (5, 1), (12, 10)], ids=str)
def test_a_grid_table_is_what_resizing_it_gives(how: Interpolation, grid: tuple[int, int]) -> None:
    positions = GridPositions(width=D, grid=(3, 4), how=how).double()
    resized = resize_grid(positions.table, *grid, how)
    torch.testing.assert_close(positions(*ids_of(grid)).view(*grid, D), resized, rtol=1e-5, atol=1e-5)


def test_a_grid_table_serves_many_grids_at_once() -> None:
    positions = GridPositions(width=D, grid=(3, 4), how=SIGLIP2)
    parts = [ids_of(grid) for grid in [(2, 9), (3, 4), (0, 0), (7, 1)]]
    together = positions(*(torch.cat(of) for of in zip(*parts, strict=True)))
    torch.testing.assert_close(together, torch.cat([positions(*part) for part in parts]))


# --- fractions


def test_entries_stand_at_the_middle_of_their_share() -> None:
    table = torch.tensor([[10.0], [20.0], [40.0], [80.0]])
    fractions = torch.tensor([0.125, 0.375, 0.875, 0.25, 0.5, 0.75, 0.0, 0.1, 0.9, 1.0, -3.0, 3.0])
    expected = [10, 20, 80, 15, 30, 60, 10, 10, 80, 80, 10, 80]
    assert between(lambda entries: table[entries], fractions, 4)[:, 0].tolist() == expected


@pytest.mark.parametrize("combine", ["sum", "product", "stack"])
def test_a_grid_of_max_len_reads_a_fractional_table_entry_by_entry(combine: Any) -> None:
    absolute = FactorizedPositions(width=D, max_len=M, combine=combine)
    fractional = FactorizedPositions(width=D, max_len=M, combine=combine, fractional=True)
    fractional.load_state_dict(absolute.state_dict())
    ids, grids = ids_of((M, M), pp.positions.Fractional(centered=True))
    torch.testing.assert_close(fractional(ids, grids), absolute(*ids_of((M, M))))


@pytest.mark.parametrize("grid", [(1, 1), (4, 9), (13, 2)], ids=str)
def test_reading_between_entries_is_a_resize_without_antialias(grid: tuple[int, int]) -> None:
    positions = FactorizedPositions(width=D, max_len=M, fractional=True).double()
    rows, cols = (Interpolation().matrix(M, n) @ table for n, table in zip(grid, positions.parameters(), strict=True))
    answer = positions(*ids_of(grid, pp.positions.Fractional(centered=True))).view(*grid, D)
    torch.testing.assert_close(answer, rows[:, None] + cols[None], rtol=1e-5, atol=1e-5)


def test_fractions_fit_any_table() -> None:
    FactorizedPositions(width=D, max_len=2, fractional=True).check(torch.tensor([[[99, 99]]]))


def test_the_sinusoidal_table_is_read_between_entries_too() -> None:
    """Half way between two sines is not the sine of half way."""
    fractional, absolute = SinusoidalPositions(width=D, max_len=4, fractional=True), SinusoidalPositions(width=D)
    entries = absolute(torch.tensor([[1, 2], [2, 3]]), torch.tensor([[4, 4]] * 2))
    halfway = fractional(torch.tensor([[0.5, 0.75]]), torch.tensor([[4, 4]]))
    torch.testing.assert_close(halfway, entries.mean(0, keepdim=True))
    ids, grids = ids_of((4, 4), pp.positions.Fractional(centered=True))
    torch.testing.assert_close(fractional(ids, grids), absolute(*ids_of((4, 4))))


# --- waves


def test_sines_and_cosines_by_hand() -> None:
    answer = SinusoidalPositions(width=8).double()(torch.tensor([[3, 700]]), torch.tensor([[4, 701]]))[0]
    expected = [f(at * turn) for at in (3, 700) for f in (math.sin, math.cos) for turn in (1.0, 0.01)]
    torch.testing.assert_close(answer, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_moco_puts_columns_first_and_ends_at_the_base() -> None:
    answer = SinusoidalPositions(width=12, moco=True).double()(torch.tensor([[3, 7]]), torch.tensor([[4, 8]]))[0]
    expected = [f(at * turn) for at in (7, 3) for f in (math.sin, math.cos) for turn in (1.0, 0.01, 0.0001)]
    torch.testing.assert_close(answer, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert SinusoidalPositions(width=4, moco=True)(torch.tensor([[3, 7]]), torch.tensor([[4, 8]])).isfinite().all()


def test_a_sine_is_the_same_in_a_bfloat16_model() -> None:
    far = torch.tensor([[301, 997]])
    exact = SinusoidalPositions(width=64).double()(far, far)
    torch.testing.assert_close(SinusoidalPositions(width=64).bfloat16()(far, far).double(), exact, rtol=0, atol=5e-3)


def test_a_sine_is_the_same_under_autocast() -> None:
    far = torch.tensor([[301, 97]])
    for module in (SinusoidalPositions(width=64), FourierPositions(width=64)):
        expected = module(far, far)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(module(far, far), expected)


def test_fourier_is_one_linear_map_then_sine_and_cosine() -> None:
    positions = FourierPositions(width=4).double()
    with torch.no_grad():
        positions.frequencies.copy_(torch.tensor([[0.5, 1.0], [0.25, -2.0]]))
    answer = positions(torch.tensor([[2, 4]]), torch.tensor([[3, 5]]))[0]
    expected = [math.sin(2), math.sin(-6), math.cos(2), math.cos(-6)]
    torch.testing.assert_close(answer, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_spread_of_fourier_frequencies() -> None:
    for made, std in (({}, 0.5), ({"fractional": True}, 2 * math.pi), ({"std": 3.0}, 3.0)):
        assert FourierPositions(width=4096, **made).frequencies.std().item() == pytest.approx(std, rel=0.1)


# --- what cannot work


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(RasterPositions, width=8, max_tokens=0), "at least one entry per axis and one value per entry, got 0×8"),
        (partial(JointPositions, width=8, max_len=0), "at least one entry per axis and one value per entry, got 0×0×8"),
        (
            partial(GridPositions, width=8, grid=(7, 0), how=SIGLIP2),
            "at least one entry per axis and one value per entry, got 7×0×8",
        ),
        (partial(FactorizedPositions, width=8, max_len=0), "at least one entry per axis and one value per entry, got 0×8"),
        (partial(FactorizedPositions, width=8, max_len=4, combine="concat"), "combine must be 'sum', 'product' or 'stack'"),
        (partial(FactorizedPositions, width=9, max_len=4, combine="stack"), "needs an even width, got 9"),
        (partial(FactorizedPositions, width=8, max_len=4, first=1, fractional=True), "needs first=0, got 1"),
        (partial(SinusoidalPositions, width=6), "multiple of 4, got 6"),
        (partial(SinusoidalPositions, width=0), "multiple of 4, got 0"),
        (partial(SinusoidalPositions, width=8, max_len=0), "max_len must be at least 1, got 0"),
        (partial(FourierPositions, width=7), "width must be even and at least 2, .* got 7"),
        (partial(FourierPositions, width=8, std=0.0), "std must be positive, got 0.0"),
    ],
)
def test_positions_that_cannot_work_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# --- in the model


def batch_for(kind: str, *numbers: int) -> pp.PackedBatch:
    """Three pictures of different grids in one row, or some of them, and padding at its end."""
    scheme = pp.positions.Fractional(centered=True) if kind in FRACTIONAL else pp.positions.Absolute()
    recipe = pp.Recipe(resize=pp.resize.Native(24), patch_size=4, seq_len=64, max_images=4, rows_per_batch=1, positions=scheme)
    random = torch.Generator().manual_seed(1)
    sizes = [(8, 20), (16, 12), (4, 4)]
    samples = [
        pp.Sample(str(i), Image.fromarray(torch.randint(0, 256, (*size, 3), generator=random, dtype=torch.uint8).numpy()), i)
        for i, size in enumerate(sizes)
    ]
    (batch,) = pp.load([samples[i] for i in numbers or (0, 1, 2)], recipe)
    assert int(batch.slot_mask.sum()) == len(numbers or sizes)
    assert (batch.segment_ids == 0).any()
    return batch


def model_for(kind: str, *, static: bool = False) -> ViT:
    torch.manual_seed(0)
    return ViT(patch_size=4, width=D, depth=1, heads=2, num_classes=3, positions=KINDS[kind][0](), static=static)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_alone(kind: str) -> None:
    """Each token is given the grid of its own image."""
    model, packed = model_for(kind).double(), batch_for(kind)
    logits = {int(target): answer for target, answer in zip(packed.targets[0], model(packed)[0], strict=True)}
    for number in range(3):
        torch.testing.assert_close(logits[number], model(batch_for(kind, number))[0, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_shapes_give_the_same_step(kind: str) -> None:
    batch = batch_for(kind)
    answers = []
    for static in (False, True):
        model = model_for(kind, static=static).double()
        logits = model(batch)
        cross_entropy(logits, batch.targets).backward()
        answers.append([logits, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(answers[0], answers[1])


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_one_graph(kind: str) -> None:
    """Nothing in it depends on values: a module alone compiles in no time, so all of them are asked."""
    module = KINDS[kind][0]()
    ids, grids = ids_of((3, 5), pp.positions.Fractional(centered=True) if kind in FRACTIONAL else pp.positions.Absolute())
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, grids), module(ids, grids))


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("sum", "eager"),
        *(pytest.param(kind, "aot_eager", marks=pytest.mark.slow) for kind in ("sum", "grid", "fractional sum")),
    ],
)
def test_a_compiled_model_gives_the_same_numbers(kind: str, backend: str) -> None:
    batch, model = batch_for(kind), model_for(kind, static=True)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(batch), model(batch))


@pytest.mark.parametrize("kind", ["raster", "joint", "sum"])
def test_a_batch_beyond_the_table_is_refused_by_the_model(kind: str) -> None:
    batch = batch_for(kind)
    with pytest.raises(ShapeError, match="cannot hold a grid of"):
        model_for(kind)(batch._replace(grid_sizes=batch.grid_sizes * 4))
