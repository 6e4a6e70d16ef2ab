"""Loading timm's weights: the forms in which users have them, heads, and errors that name the arguments that fit."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model import ViT, presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS, Interpolation, resize_grid
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.weights import load_timm, save_big_vision, to_timm

TINY = presets.Size(width=16, depth=2, mlp_dim=32, heads=2)
NAMES = {
    "presets": presets,
    "CONVENTIONS": CONVENTIONS,
    "GridPositions": GridPositions,
    "FactorizedPositions": FactorizedPositions,
    "BlockStyle": BlockStyle,
}  # what the call in an error needs
State = dict[str, Tensor]


def vit(seed: int = 0, **parts: Any) -> ViT:
    torch.manual_seed(seed)
    return presets.vit(TINY, **{"patch_size": 8, "num_classes": 5, "image_size": 32} | parts)


def state(**parts: Any) -> State:
    """The weights that the tests load: those of a model of another seed, under timm's names."""
    return to_timm(vit(seed=1, **parts))


def prefixed(weights: State, prefix: str) -> State:
    return {prefix + name: value for name, value in weights.items()}


def as_module(weights: State, **attributes: Any) -> nn.Module:
    """A module of these weights, as timm's models are built, with attributes such as ``global_pool``."""

    class Block(nn.Module):
        pass

    root = nn.Module()
    for name, value in weights.items():
        at, parts = root, name.split(".")
        for part in parts[:-1]:
            if part not in at._modules:
                new = nn.ModuleList() if part == "blocks" else Block() if isinstance(at, nn.ModuleList) else nn.Module()
                at.add_module(part, new)
            at = at._modules[part]
        at.register_parameter(parts[-1], nn.Parameter(value))
    for name, value in attributes.items():
        path, _, leaf = name.replace("__", ".").rpartition(".")
        setattr(root.get_submodule(path), leaf, value)
    return root


def assert_loaded(model: ViT, weights: State | None = None) -> None:
    expected = vit()
    load_timm(expected, state() if weights is None else weights)
    assert_equal(model, expected)


def assert_equal(model: ViT, other: ViT) -> None:
    theirs = other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def refusal(model: ViT, weights: Any, **options: Any) -> str:
    """The text of the error. The model is unchanged."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        load_timm(model, weights, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def call_in(text: str) -> str:
    """The call of a preset in an error."""
    start = text.index("presets.", text.index("make the model with"))
    level = 0
    for i in range(start, len(text)):
        level += (text[i] == "(") - (text[i] == ")")
        if text[i] == ")" and not level:
            return text[start : i + 1]
    raise AssertionError(text)


# ------------------------------------------------------------------------------------------------------------- forms


FORMS: dict[str, Callable[[State], Any]] = {
    "state dict": lambda weights: weights,
    "module": as_module,
    "wrapped module": lambda weights: nn.DataParallel(as_module(weights)),
    "state_dict": lambda weights: {"epoch": 3, "arch": "vit", "state_dict": weights},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": []}},
    "model_ema": lambda weights: {"model_ema": weights},
    "two levels": lambda weights: {"model": {"state_dict": weights}, "metric": torch.zeros(())},
    "a module in a mapping": lambda weights: {"model": as_module(weights)},
    "parameters": lambda weights: {name: nn.Parameter(value) for name, value in weights.items()},
}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "_orig_mod.module.", "visual.trunk."])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_prefix_is_the_same_model(form: str, prefix: str) -> None:
    model = vit()
    done = load_timm(model, FORMS[form](prefixed(state(), prefix)))
    assert done == ((), (), ())
    assert_loaded(model)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "pytorch_model.bin", "checkpoint.pth.tar", "weights"])
def test_paths_of_torch(name: str, nested: bool, tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": prefixed(state(), "module.")} if nested else state(), tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        model = vit()
        load_timm(model, path)
        assert_loaded(model)


def test_paths_of_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(state(), tmp_path / "model.safetensors")
    model = vit()
    load_timm(model, tmp_path / "model.safetensors")
    assert_loaded(model)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    assert re.search(r"model\.safetensors' cannot be read, SafetensorError: ", refusal(vit(), tmp_path / "model.safetensors"))


def test_safetensors_is_asked_for_only_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "model.safetensors").touch()
    assert refusal(vit(), tmp_path / "model.safetensors").endswith("needs the package safetensors: pip install safetensors")


def test_half_precision_weights_become_the_models_precision() -> None:
    model, weights = vit(), {name: value.half() for name, value in state().items()}
    load_timm(model, weights)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert_loaded(model, {name: value.float() for name, value in weights.items()})


def test_a_head_beside_a_backbone() -> None:
    backbone = {name: value for name, value in state().items() if not name.startswith("head.")}
    head = {name: value for name, value in state().items() if name.startswith("head.")}
    for outer in ("", "module."):
        model = vit()
        load_timm(model, prefixed(backbone, f"{outer}backbone.") | prefixed(head, outer))
        assert_loaded(model)
    both = prefixed(state(), "backbone.") | head
    assert refusal(vit(), both).startswith("two weights of the checkpoint are named 'head.weight' without their prefixes")


def test_one_of_several_models_is_chosen_by_name() -> None:
    student, teacher = prefixed(state(), "module.backbone."), prefixed(state(), "module.backbone.")
    teacher = {name: value + 1 for name, value in teacher.items()}
    checkpoint = {"student": student, "teacher": teacher, "epoch": 7}
    assert refusal(vit(), checkpoint) == (
        "the checkpoint has weights of 2 models: pass entry= one of 'student.module.backbone', 'teacher.module.backbone'"
    )
    for entry, weights in (("student", student), ("teacher", teacher), ("teacher.module", teacher)):
        model = vit()
        load_timm(model, checkpoint, entry=entry)
        assert_loaded(model, weights)
    assert refusal(vit(), checkpoint, entry="ema").startswith("entry='ema' names none of the models in the checkpoint")


def test_a_name_before_another_name_is_an_entry_of_its_own() -> None:
    """timm's training script saves both, and the shorter name is the start of the longer one."""
    both = {"state_dict": state(), "state_dict_ema": {name: value * 2 for name, value in state().items()}}
    for prefix in ("", "module."):
        checkpoint = {entry: prefixed(weights, prefix) for entry, weights in both.items()}
        for entry, weights in both.items():
            model = vit()
            load_timm(model, checkpoint, entry=entry)
            assert_loaded(model, weights)


def test_an_entry_leaves_out_what_is_outside() -> None:
    clip = prefixed(state(), "visual.trunk.") | {
        "text.token_embedding.weight": torch.zeros(3, 4),
        "logit_scale": torch.ones(()),
    }
    assert "left over: logit_scale, text.token_embedding.weight" in refusal(vit(), clip)
    for entry in ("visual.trunk", "visual"):
        model = vit()
        load_timm(model, clip, entry=entry)
        assert_loaded(model)


# -------------------------------------------------------------------------------------------- what cannot be read


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(vit(), tmp_path / "none.pth").startswith(
        f"there is no file '{tmp_path}/none.pth'. torch.save(timm.create_model("
    )
    for remote in ("https://host/weights.pth", "hf_hub:timm/vit", "timm/vit_base_patch16_224.augreg_in21k"):
        assert f"there is no file {remote!r}; nothing is downloaded." in refusal(vit(), remote)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").touch()
    assert refusal(vit(), tmp_path) == f"{str(tmp_path)!r} is a folder: pass the path of a file. Files in it: model.safetensors"


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."], ids=repr)
def test_files_that_hold_no_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    text = refusal(vit(), tmp_path / "weights.pth")
    assert re.search(r"cannot be read, \w+: |is not a file that torch.save wrote|expected weights of a timm ViT", text)
    assert "\n" not in text


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert re.search(r"cannot be read, \w+: .*The file may be incomplete", refusal(vit(), path))


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "model": state()}, tmp_path / "weights.pth")
    text = refusal(vit(), tmp_path / "weights.pth")
    assert "holds argparse.Namespace beside its tensors. If you trust the file" in text
    model = vit()
    load_timm(model, torch.load(tmp_path / "weights.pth", weights_only=False))
    assert_loaded(model)


def test_weights_of_other_code_bases_are_sent_to_their_function(tmp_path: Path) -> None:
    save_big_vision(vit(class_token=False, pool="map"), tmp_path / "weights.npz")
    assert "use load_big_vision(model, path)" in refusal(vit(), tmp_path / "weights.npz")
    assert "use load_big_vision(model, weights)" in refusal(vit(), {"params/img/embedding/kernel": torch.zeros(1)})
    assert "patchpack's own names, not timm's: use model.load_state_dict(weights)" in refusal(vit(), vit().state_dict())
    assert "a patchpack model, not a timm model" in refusal(vit(), vit())
    assert refusal(vit(), {"embeddings.patch_embeddings.weight": torch.zeros(1)}) == (
        "expected weights of a timm ViT, with the name 'patch_embed.proj.weight' or 'embeds.proj.weight', "
        "got 'embeddings.patch_embeddings.weight'"
    )
    assert refusal(vit(), {}).endswith("got none")
    assert refusal(vit(), 3).startswith("weights must be a timm model, the path of a file, or a mapping")
    assert refusal(vit(), list(state().values())).endswith("got list")


# -------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("num_classes", [0, 5, 37])
def test_a_fresh_head_keeps_its_values(num_classes: int) -> None:
    model = vit(num_classes=num_classes)
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    done = load_timm(model, state(), head=False)
    assert done.left_out == ("head.bias", "head.weight")
    assert done.fresh == (("head.bias", "head.weight") if num_classes else ())
    assert all(torch.equal(value, before[name]) for name, value in model.head.state_dict().items())
    model.head = nn.Identity()
    expected = vit(num_classes=0)
    load_timm(expected, {name: value for name, value in state().items() if not name.startswith("head.")})
    assert_equal(model, expected)


def test_weights_without_a_head_leave_the_models_head() -> None:
    features = {name: value for name, value in state().items() if not name.startswith("head.")}
    model = vit()
    assert load_timm(model, features, head=False) == (("head.bias", "head.weight"), (), ())
    text = refusal(vit(), features)
    assert "num_classes=0 in the weights, 5 in the model" in text
    assert text.endswith("or pass head=False (the model keeps its own head)")
    load_timm(eval(call_in(text), NAMES), features)
    text = refusal(vit(num_classes=0), state())
    assert text.endswith("or pass head=False (the head of the weights is left out)")


def test_a_head_that_is_left_out_is_no_difference() -> None:
    text = refusal(vit(num_classes=37), state(image_size=48), head=False)
    assert text == (
        "these weights do not fit the model: image_size=48 (grid 6×6) in the weights, 32 (grid 4×4) in the model. To load "
        "them, make the model with presets.vit(presets.Size(width=16, depth=2, mlp_dim=32, heads=2), 8, image_size=48, "
        'how=CONVENTIONS["timm"], num_classes=37), or pass resize_positions=True (the table of positions is resized)'
    )
    load_timm(eval(call_in(text), NAMES), state(image_size=48), head=False)


def test_a_second_head_is_not_left_out_in_silence() -> None:
    """DeiT's distilled models have such a head."""
    weights = state() | {"head_dist.weight": torch.zeros(5, 16)}
    assert "left over: head_dist.weight" in refusal(vit(), weights, head=False)
    assert "left over: head_dist.weight" in refusal(vit(), weights)


def test_a_head_of_another_name() -> None:
    weights = {name.replace("head.", "classifier."): value for name, value in state().items()}
    assert "left over: classifier.bias, classifier.weight" in refusal(vit(), weights, head=False)
    model = vit(num_classes=37)
    done = load_timm(model, weights, head="classifier")
    assert done == (("head.bias", "head.weight"), ("classifier.bias", "classifier.weight"), ())
    assert refusal(vit(), weights, head="fc") == (
        "head='fc' names no weights. The parts of these weights are blocks, classifier, cls_token, norm, patch_embed, pos_embed"
    )
    assert refusal(vit(), weights, head=None) == "head must be True, False or the name of the head in the weights, got None"


# ------------------------------------------------------------------------------------------------- what does not fit


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.SIZES, "Ti", presets.Size(24, 2, 48, 3))
    monkeypatch.setitem(presets.SIZES, "S", presets.Size(48, 2, 96, 6))


@pytest.mark.usefixtures("small_sizes")
def test_other_classes_and_another_image_size_in_exact_words() -> None:
    weights = to_timm(presets.vit_ti16(num_classes=1000, image_size=384))
    model = presets.vit_ti16(num_classes=37)
    assert refusal(model, weights) == (
        "these weights do not fit the model: image_size=384 (grid 24×24) in the weights, 224 (grid 14×14) in the model; "
        "num_classes=1000 in the weights, 37 in the model. To load them, make the model with "
        'presets.vit("Ti", 16, image_size=384, how=CONVENTIONS["timm"], num_classes=1000), or pass '
        "resize_positions=True (the table of positions is resized) and head=False (the model keeps its own head)"
    )
    assert load_timm(model, weights, head=False, resize_positions=True).resized == ("positions.table",)


@pytest.mark.usefixtures("small_sizes")
def test_flexivits_kernel_and_grid_in_exact_words() -> None:
    weights = to_timm(presets.flexivit("Ti", num_classes=10, kernel_size=16, grid=15), "flexivit")
    text = refusal(presets.flexivit("Ti", num_classes=10), weights)
    assert text == (
        "these weights do not fit the model: kernel_size=16 in the weights, 32 in the model; grid=15 in the weights, "
        '7 in the model. To load them, make the model with presets.flexivit("Ti", kernel_size=16, grid=15, '
        'how=CONVENTIONS["timm"], positions_how=CONVENTIONS["timm"], num_classes=10), or pass resize_positions=True (the table '
        "of positions is resized) and resize_kernel=True (the patch kernel is resized)"
    )
    load_timm(eval(call_in(text), NAMES), weights)


@pytest.mark.usefixtures("small_sizes")
def test_a_size_that_no_option_mends_in_exact_words() -> None:
    assert refusal(presets.vit_s16(num_classes=3), to_timm(presets.vit_ti16(num_classes=10))) == (
        "these weights do not fit the model: width=24 in the weights, 48 in the model; mlp_dim=48 in the weights, 96 in the "
        "model; num_classes=10 in the weights, 3 in the model. To load them, make the model with "
        'presets.vit("Ti", 16, image_size=224, how=CONVENTIONS["timm"], num_classes=10). The num_classes may differ if you '
        "pass head=False (the model keeps its own head)"
    )


def test_weights_that_no_preset_takes() -> None:
    weights = state() | {"norm_pre.weight": torch.ones(16)}
    assert refusal(vit(), weights) == (
        "these weights do not fit the model: left over: norm_pre.weight. To load them, make the model with the same parts as "
        "the weights"
    )
    del weights["norm.weight"]
    text = refusal(vit(num_classes=3), weights)
    assert "num_classes=5 in the weights, 3 in the model; missing: norm.weight; left over: norm_pre.weight" in text


def test_a_block_that_differs_from_the_first_is_no_presets() -> None:
    weights = state()
    del weights["blocks.1.norm1.weight"]
    text = refusal(vit(num_classes=3), weights)
    assert "missing: blocks.1.norm_attention.weight" in text
    assert "presets." not in text


def test_pooling_that_a_state_dict_does_not_tell_is_the_models() -> None:
    """Weights with a class token have the same names with both kinds of pooling."""
    load_timm(vit(pool="mean"), state())
    text = refusal(vit(pool="mean", num_classes=3), state())
    assert text.startswith("these weights do not fit the model: num_classes=5 in the weights, 3 in the model. To load them")
    assert 'pool="mean"' in call_in(text)


def test_an_error_leaves_torchs_random_numbers() -> None:
    model, weights = vit(num_classes=3), state()
    before = torch.random.get_rng_state()
    refusal(model, weights)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_number_of_heads_is_said_to_be_assumed() -> None:
    """A state dict does not tell it. The user's model of the same width does, and so do a module and the sizes with names."""
    wide = presets.vit(presets.Size(64, 1, 64, 4), 8, num_classes=5, image_size=32)
    said = 'heads=1), 8, image_size=32, how=CONVENTIONS["timm"], num_classes=5) (a state dict does not tell the number of heads'
    assert said in refusal(wide, state())
    module = as_module(state(), blocks__0__attn__num_heads=2)
    for text in (refusal(wide, module), refusal(vit(num_classes=5, image_size=64), state())):
        assert "heads=2), 8," in text
        assert "assumed" not in text


OTHERS: dict[str, Callable[[], ViT]] = {
    "navit": lambda: presets.navit(TINY, 8, num_classes=5),
    "naflexvit": lambda: presets.naflexvit(TINY, 16, num_classes=3),
    "siglip2": lambda: presets.siglip2(presets.Size(32, 1, 64, 4), 8),
    "flexivit": lambda: presets.flexivit(TINY, num_classes=5, kernel_size=12, grid=5),
    "no positions": lambda: vit(positions=None),
    "no blocks": lambda: presets.vit(presets.Size(16, 0, 32, 2), 8, num_classes=5, image_size=32),
    "factorised": lambda: vit(positions=FactorizedPositions(width=16, max_len=9)),
}


@pytest.mark.parametrize("mine", OTHERS)
@pytest.mark.parametrize("theirs", ["vit", "flexivit", "naflexvit", "factorised"])
def test_the_call_in_the_error_makes_a_model_that_takes_the_weights(theirs: str, mine: str) -> None:
    torch.manual_seed(1)
    weights = {
        "vit": lambda: to_timm(vit(image_size=48, registers=2, style=BlockStyle(qk_norm=True, layer_scale=0.1))),
        "flexivit": lambda: to_timm(presets.flexivit(TINY, num_classes=4, kernel_size=8, grid=3), "flexivit"),
        "naflexvit": lambda: to_timm(presets.naflexvit(TINY, 8, num_classes=4), "naflexvit"),
        "factorised": lambda: to_timm(
            vit(positions=FactorizedPositions(width=16, max_len=6), class_token=False, pool="map"), "naflexvit"
        ),
    }[theirs]()
    text = refusal(OTHERS[mine](), weights)
    load_timm(eval(call_in(text), NAMES), weights)
    assert text.endswith(")"), text


@given(
    st.sampled_from([1, 2, 4]), st.integers(1, 3), st.sampled_from([4, 7]), st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(0, 3), st.booleans(), st.integers(0, 2), st.sampled_from(["mean", "map"]), st.sampled_from(["before", "after"]),
)  # fmt: skip
def test_a_module_of_any_sizes_is_described_by_the_error(
    heads: int, depth: int, patch: int, grid: tuple[int, int], classes: int, token: bool, registers: int, pool: Any, norm: Any
) -> None:
    """The call makes a model that takes the weights and has the same logits, whatever the sizes."""
    size = presets.Size(width=8 * heads, depth=depth, mlp_dim=12, heads=heads)
    positions = GridPositions(grid=grid, width=8 * heads, how=CONVENTIONS["timm"])
    model = presets.vit(
        size, patch, num_classes=classes, positions=positions, class_token=token, registers=registers, pool=pool, norm=norm
    )
    module = as_module(to_timm(model), blocks__0__attn__num_heads=heads, patch_embed__grid_size=grid)
    module.global_pool = "avg" if pool == "mean" else pool
    made = eval(call_in(refusal(presets.navit(TINY, 8, num_classes=9), module)), NAMES)
    load_timm(made, module)
    assert made.heads == heads
    assert type(made.pool) is type(model.pool)
    assert tuple(made.positions.table.shape[:2]) == grid
    assert_equal(made, model)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"blocks__0__attn__num_heads": 4}, "heads=4 in the weights, 2 in the model"),
        ({"global_pool": "avg"}, "pool=mean in the weights, class in the model"),
        ({"global_pool": "avgmax"}, "pool=avgmax in the weights, class in the model"),
        ({"blocks__0__mlp__act": nn.GELU(approximate="tanh")}, "activation=gelu_tanh in the weights, gelu in the model"),
        ({"blocks__0__mlp__act": nn.SiLU()}, "activation=SiLU in the weights, gelu in the model"),
        ({"blocks__0__norm1__eps": 1e-5}, "eps=1e-05 in the weights, 1e-06 in the model"),
    ],
)
def test_parts_that_only_a_module_tells_are_compared(attributes: dict[str, Any], said: str) -> None:
    """With a state dict these weights load, and the logits would be wrong."""
    text = refusal(vit(), as_module(state(), **attributes))
    assert text.startswith(f"these weights do not fit the model: {said}")
    load_timm(vit(), state())
    if "presets." in text:
        load_timm(eval(call_in(text), NAMES), as_module(state(), **attributes))
    else:
        assert any(name in said for name in ("avgmax", "SiLU", "eps"))


@pytest.mark.parametrize(
    ("mode", "antialias", "sample", "square", "said"),
    [
        ("bicubic", True, False, False, None),
        ("bicubic", True, False, True, "preserve_aspect=True in the weights, False in the model"),
        ("bilinear", True, False, False, 'how=CONVENTIONS["siglip2"] in the weights, CONVENTIONS["timm"] in the model'),
        ("bicubic", False, False, False, 'how=CONVENTIONS["moonvit"] in the weights, CONVENTIONS["timm"] in the model'),
        ("bicubic", True, True, False, 'how=CONVENTIONS["paddleocr_vl"] in the weights, CONVENTIONS["timm"] in the model'),
    ],
)
def test_the_rule_by_which_naflexvit_resizes_its_table(
    mode: str, antialias: bool, sample: bool, square: bool, said: str | None
) -> None:
    weights = to_timm(presets.naflexvit(TINY, 8, num_classes=4), "naflexvit")
    rule = {"interp_mode": mode, "antialias": antialias, "use_grid_sample": sample, "ar_preserving": square}
    module = as_module(weights, **{f"embeds__pos_embed_{name}": value for name, value in rule.items()})
    model = presets.naflexvit(TINY, 8, num_classes=4)
    if said is None:
        load_timm(model, module)
        return
    text = refusal(model, module)
    assert said in text
    made = eval(call_in(text), NAMES)
    load_timm(made, module)
    kernel = "bilinear" if sample else mode
    assert made.positions.how == Interpolation(kernel=kernel, antialias=antialias and not sample)  # type: ignore[arg-type]
    assert made.positions.preserve_aspect == square


def test_a_module_that_says_the_same_loads() -> None:
    model = vit()
    load_timm(
        model,
        as_module(
            state(),
            blocks__0__attn__num_heads=2,
            global_pool="token",
            blocks__0__mlp__act=nn.GELU(),
            blocks__0__norm1__eps=1e-6,
        ),
    )
    assert_loaded(model)


def test_a_block_of_another_class_is_refused() -> None:
    class ResPostBlock(nn.Module):
        pass

    module = as_module(state())
    for block in module.blocks:
        block.__class__ = ResPostBlock
    assert "block=ResPostBlock in the weights, Block in the model" in refusal(vit(), module)


# ---------------------------------------------------------------------------------------------------------- resizing


def test_a_table_is_resized_on_request_only() -> None:
    weights = state(image_size=48, registers=1)
    model = vit(registers=1)
    assert "or pass resize_positions=True" in refusal(model, weights)
    done = load_timm(model, weights, resize_positions=True)
    assert done.resized == ("positions.table",)
    stored = weights["pos_embed"][0, 2:].view(6, 6, 16)
    assert torch.equal(model.positions.table, resize_grid(stored, 4, 4, CONVENTIONS["timm"]))
    assert torch.equal(
        model.prefix, torch.cat([weights["cls_token"][0], weights["reg_token"][0]]) + weights["pos_embed"][0, :2]
    )


@pytest.mark.parametrize("family", ["vit", "flexivit", "naflexvit"])
def test_a_resize_to_the_same_size_changes_nothing(family: Any) -> None:
    weights = to_timm(vit(seed=1), family)
    model, plain = vit(), vit()
    assert load_timm(model, weights, resize_positions=True, resize_kernel=True).resized == ()
    load_timm(plain, weights)
    assert_equal(model, plain)


@pytest.mark.parametrize("family", ["vit", "naflexvit"])
def test_kernels_of_both_forms_are_resized_alike(family: Any) -> None:
    model, other = (vit(patch_size=6, image_size=24) for _ in range(2))
    load_timm(model, to_timm(vit(seed=1), family), resize_kernel=True)
    load_timm(other, to_timm(vit(seed=1)), resize_kernel=True)
    assert_equal(model, other)


def test_an_option_that_helps_is_not_named_twice() -> None:
    text = refusal(vit(num_classes=3), state(image_size=48), resize_positions=True)
    assert "grid" not in text
    assert "resize_positions" not in text
    made = eval(call_in(text), NAMES)
    assert made.positions.table.shape[:2] == (4, 4)
    load_timm(made, state(image_size=48), resize_positions=True)


def test_a_table_of_an_unknown_grid() -> None:
    """14 positions may be 2×7 or 7×2: the module tells which."""
    weights = state(positions=GridPositions(grid=(2, 7), width=16, how=CONVENTIONS["timm"]))
    for options in ({}, {"resize_positions": True}):
        text = refusal(vit(), weights, **options)
        assert "the table has 15 positions, which is not the number of a square grid" in text
        assert text.endswith("pass the timm model instead of its state dict, because the model tells the rows and columns")
    model = vit()
    load_timm(model, as_module(weights, patch_embed__grid_size=(2, 7)), resize_positions=True)
    wide = vit(positions=GridPositions(grid=(2, 7), width=16, how=CONVENTIONS["timm"]))
    load_timm(wide, weights)  # the model's own grid fits
    assert torch.equal(model.positions.table, resize_grid(wide.positions.table, 4, 4, CONVENTIONS["timm"]))


def test_a_module_tells_its_grid_where_the_models_grid_fits_too() -> None:
    """16 positions are a grid of 4×4, as in the model, or of 2×8, as in the module."""
    module = as_module(state(), patch_embed__grid_size=(2, 8))
    assert "grid=2×8 in the weights, 4×4 in the model" in refusal(vit(), module)
    model = vit()
    assert load_timm(model, module, resize_positions=True).resized == ("positions.table",)
    stored = state()["pos_embed"][0, 1:].view(2, 8, 16)
    assert torch.equal(model.positions.table, resize_grid(stored, 4, 4, CONVENTIONS["timm"]))


def test_kernels_that_are_no_images_kernels() -> None:
    grey = state() | {"patch_embed.proj.weight": torch.zeros(16, 1, 8, 8)}
    for options in ({}, {"resize_kernel": True}):
        assert "of another shape: embed.linear.weight is [16, 64], expected [16, 192]" in refusal(vit(), grey, **options)
    video = state() | {"patch_embed.proj.weight": torch.zeros(16, 3, 2, 8, 8)}
    assert "embed.linear.weight" in refusal(vit(), video, resize_kernel=True)
