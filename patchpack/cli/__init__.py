"""The command line. Parsing by argparse, progress and tables by rich; a command's own module is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from patchpack._version import __version__
from patchpack.cli.arguments import add_members, add_source, add_workers, parse_numbers
from patchpack.errors import PatchpackError
from patchpack.stream.sample.names import IMAGE

_SHARDS = "tar files: paths, URLs, brace patterns or globs"
_DEMO = """\
Streams the sample shards that patchpack ships, packs them, trains a small NaViT on
the packed rows and measures it on held-out images. Needs no data and no network.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``patchpack ARGS``; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except PatchpackError as error:
        print(f"patchpack: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchpack",
        description="Native-resolution images in, packed batches out: the input side of NaViT-style vision transformers.",
        epilog="example: patchpack demo",
    )
    parser.add_argument("--version", action="version", version=f"patchpack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="watch images become packed rows that train a small NaViT (about a minute)",
        description=_DEMO,
        epilog="examples:\n  patchpack demo\n  patchpack demo --write train.py && python train.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--out", default=".", metavar="DIR", help="where the pictures go (default: the current directory)")
    demo.add_argument("--epochs", type=int, default=None, metavar="N", help="passes over the training shards (default: 40)")
    demo.add_argument("--write", metavar="FILE", help="write the program the demo runs (60 lines, public API) and stop")
    demo.set_defaults(run=_demo)

    inspect = commands.add_parser(
        "inspect",
        help="what is in a source of images, and a recipe that suits it",
        description="Reads every image once: sizes, aspect ratios, formats, unreadable files; then suggests a recipe,\n"
        "with the fill it reaches on these sizes and code to paste.",
        epilog="examples:\n  patchpack inspect photos/ -o survey.png\n"
        "  patchpack inspect 'train-{0000..0003}.tar' --limit 1000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(inspect)
    inspect.add_argument("--limit", type=int, default=10_000, metavar="N", help="samples to read at most (default: 10000)")
    inspect.add_argument("-o", "--out", metavar="FILE", help="draw the survey as well: .png, .pdf or .svg; needs matplotlib")
    inspect.set_defaults(run=_inspect)

    preview = commands.add_parser(
        "preview",
        help="draw packed rows of your own data as they are",
        description="Draws the first batch of a source: patches in place, a colour per image, dropped patches and padding\n"
        "hatched, unreadable images crossed; then images before and after resizing.",
        epilog="examples:\n  patchpack preview photos/ --recipe siglip2_naflex\n"
        "  patchpack preview 'train-{0000..0003}.tar' --recipe navit --seq-len 1024 --rows 3 -o rows.png\n"
        "  patchpack preview photos/ --features --model siglip2_b16 --weights siglip2_b16_naflex.npz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(preview)
    preview.add_argument("--recipe", default="navit", help="name of a preset in patchpack.recipes (default: navit)")
    preview.add_argument("--seq-len", type=int, default=None, metavar="N", help="tokens per row (default: the preset's)")
    preview.add_argument("--rows", type=int, default=2, metavar="N", help="rows to draw (default: 2)")
    preview.add_argument("--epoch", type=int, default=0, metavar="N", help="whose draws to show (default: 0)")
    preview.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    preview.add_argument("--ids", action="store_true", help="write slot numbers")
    preview.add_argument("--features", action="store_true", help="draw what a model makes of each patch, as colours")
    preview.add_argument("--model", metavar="NAME", help="which: a preset in patchpack.model.presets (default: flexivit_s)")
    preview.add_argument("--weights", metavar="FILE", help="its weights: a .npz of big_vision, or a state dict of timm or ours")
    preview.add_argument("-o", "--out", default="preview.png", metavar="FILE", help="a .png (default: preview.png)")
    preview.set_defaults(run=_preview)

    replay = commands.add_parser(
        "replay",
        help="one image again as training saw it",
        description="Plans and paints one image alone, from its key and the numbers its draws are addressed by: the same\n"
        "patches to the bit as in any batch of that run, whatever the number of workers or ranks.",
        epilog="examples:\n  patchpack replay 'train-*.tar' --key train-0003.tar/n0144 --seed 7 --epoch 3 -o n0144.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(replay)
    replay.add_argument("--key", required=True, help="of the image, as reports and batches name it")
    replay.add_argument("--recipe", default="navit", help="name of a preset in patchpack.recipes (default: navit)")
    replay.add_argument("--seq-len", type=int, default=None, metavar="N", help="tokens per row (default: the preset's)")
    replay.add_argument("--seed", type=int, default=0, metavar="N", help="of the run (default: 0)")
    for name, what in (
        ("epoch", "of the run"), ("step", "of its batch, for recipes of several patch sizes"),
        ("repeat", "pass over the source within the epoch"), ("ordinal", "of the sample in the run, for drop schedules"),
        ("part", "which of a sample's several images"),
    ):  # fmt: skip
        replay.add_argument(f"--{name}", type=int, default=0, metavar="N", help=f"{what} (default: 0)")
    replay.add_argument("--num-tokens", type=int, metavar="N", help="in its batch, where max_cut left it fewer (default: all)")
    replay.add_argument("-o", "--out", metavar="FILE", help="draw it as well: a .png")
    replay.set_defaults(run=_replay)

    plan = commands.add_parser(
        "plan",
        help="rows, fill and waits at several row lengths, and which to take",
        description="Packs images of given sizes as training would, at several row lengths and numbers of slots, and\n"
        "recommends one. Sizes come from a table (.npz with hw or wh, .csv with height and width) or from the\n"
        "headers of a source; no image is decoded.",
        epilog="examples:\n  patchpack plan sizes.npz --recipe navit --seq-len 512,1024,2048 -o plan.png\n"
        "  patchpack plan 'train-{0000..0003}.tar' --seq-len 1024 --max-images 16,32,64",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(plan, "SIZES_OR_SOURCE", "a .npz or .csv of sizes, webdataset shards, a folder, a glob or one file")
    plan.add_argument("--recipe", default="navit", help="name of a preset in patchpack.recipes (default: navit)")
    plan.add_argument("--seq-len", type=parse_numbers, default=None, metavar="N,N", help="tokens per row (default: several)")
    plan.add_argument(
        "--max-images", type=parse_numbers, default=None, metavar="N,N", help="slots per row (default: the preset's)"
    )
    plan.add_argument("--order", choices=("hw", "wh"), help="of the columns of a .npz that does not say it in its key")
    plan.add_argument("--limit", type=int, default=100_000, metavar="N", help="images to plan at most (default: 100000)")
    plan.add_argument("--epoch", type=int, default=0, metavar="N", help="whose draws to use (default: 0)")
    plan.add_argument("-o", "--out", metavar="FILE", help="draw it as well: .png, .pdf or .svg; needs matplotlib")
    plan.set_defaults(run=_plan)

    index = commands.add_parser(
        "index",
        help="read the headers of shards once, so that epochs are planned as a whole",
        description="Reads size and place of every sample of uncompressed tar shards into one small file, with which\n"
        "patchpack.load plans a whole epoch at once and resumes at any step. No image is decoded.",
        epilog="examples:\n  patchpack index 'train-{0000..0099}.tar' -o train.index --num-workers 8\n"
        "  patchpack index 'train-*.tar' --update train.index -o train.index\n"
        "  patchpack index 's3://bucket/train-{0000..0099}.tar' -o train.index --num-workers 32",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    index.add_argument("shards", nargs="+", metavar="SHARDS", help=_SHARDS)
    index.add_argument("-o", "--out", required=True, metavar="FILE", help="where the index goes; an older one is replaced")
    add_members(index, "the older index's")
    add_workers(index, "read")
    index.add_argument("--update", metavar="OLD", help="an earlier index: only shards that changed since are read")
    index.set_defaults(run=_index)

    pack = commands.add_parser(
        "pack",
        help="paint whole epochs once, into shards of packed batches",
        description="Plans epochs of uncompressed tar shards, paints all of their batches and writes them to a folder,\n"
        "from which patchpack.PackedShards reads them back. Run again it goes on where it was killed.",
        epilog="examples:\n  patchpack pack train.index packed/ --recipe siglip2_naflex --shuffle 100000 --num-workers 8\n"
        "  patchpack pack 'train-*.tar' packed/ --seq-len 4096 --epochs 4 --engine ray",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pack.add_argument("source", nargs="+", metavar="SHARDS", help=f"{_SHARDS}; or one index")
    pack.add_argument("out", metavar="OUT", help="a new folder, or one where the same was begun")
    pack.add_argument("--recipe", default="navit", help="name of a preset in patchpack.recipes (default: navit)")
    pack.add_argument("--seq-len", type=int, default=None, metavar="N", help="tokens per row (default: the preset's)")
    pack.add_argument("--rows", type=int, default=None, metavar="N", help="rows of a batch (default: the preset's)")
    pack.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    pack.add_argument("--epoch", type=int, default=0, metavar="N", help="whose draws to fix (default: 0)")
    pack.add_argument("--epochs", type=int, default=1, metavar="N", help="how many, one behind the other (default: 1)")
    pack.add_argument("--shuffle", type=int, default=0, metavar="N", help="in blocks of so many samples (default: 0, not)")
    pack.add_argument(
        "--tail", default="short", choices=("short", "drop", "pad", "wrap"),
        help="of rows that do not fill a last batch (default: short)",
    )  # fmt: skip
    pack.add_argument("--steps-per-shard", type=int, default=None, metavar="N", help="batches of a file (default: 256 MB)")
    add_members(pack, "the index's")
    add_workers(pack, "paint")
    pack.set_defaults(run=_pack)

    embed = commands.add_parser(
        "embed",
        help="a vector for every image of a source, in parts",
        description="Runs a model over every image once, in its own shape and nothing dropped, and writes vectors and keys\n"
        "to a folder in parts. Run again it goes on where it was killed.",
        epilog="examples:\n  patchpack embed photos/ --model siglip2_b16 --weights siglip2_b16_naflex.npz -o vectors/\n"
        "  patchpack embed 'train-{0000..0003}.tar' --model naflexvit_b16 --weights naflex.pt --device cuda -o vectors/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    embed.add_argument("source", metavar="SOURCE", help="webdataset shards, a folder, a glob or one file")
    embed.add_argument("--image", default=IMAGE, metavar="EXT", help="image extensions, ; between")
    embed.add_argument("--model", required=True, metavar="NAME", help="a preset in patchpack.model.presets")
    embed.add_argument("--weights", metavar="FILE", help="a .npz of big_vision, or a state dict of timm or ours")
    embed.add_argument("-o", "--out", required=True, metavar="DIR", help="a new folder, or one where the same was begun")
    embed.add_argument(
        "--recipe", default="siglip2_naflex", help="name of a preset in patchpack.recipes (default: siglip2_naflex)"
    )
    embed.add_argument("--seq-len", type=int, default=None, metavar="N", help="tokens per row (default: the preset's)")
    embed.add_argument("--rows", type=int, default=None, metavar="N", help="rows of a batch (default: the preset's)")
    embed.add_argument("--device", default="cpu", help="of the model (default: cpu)")
    embed.add_argument("--dtype", default="float32", help="of the vectors: float32 or float16 (default: float32)")
    embed.add_argument("--part-size", type=int, default=10_000, metavar="N", help="images in a part (default: 10000)")
    embed.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes that paint (default: 0, this one)")
    embed.set_defaults(run=_embed)
    return parser


def _demo(args: argparse.Namespace) -> int:
    from patchpack.cli.demo import run, write_program

    if args.write:
        return write_program(args.write)
    return run(args.out, args.epochs)


def _inspect(args: argparse.Namespace) -> int:
    from patchpack.cli.inspect import run

    return run(args.source, image=args.image, target=args.target, limit=args.limit, out=args.out)


def _preview(args: argparse.Namespace) -> int:
    from patchpack.cli.preview import run
    from patchpack.plan import recipes

    changes = {"rows": args.rows, "seed": args.seed} | ({} if args.seq_len is None else {"seq_len": args.seq_len})
    recipe = recipes.get(args.recipe, **changes)
    options = {"name": args.recipe, "epoch": args.epoch, "ids": args.ids, "image": args.image, "target": args.target}
    if args.features or args.model or args.weights:
        options |= {"model": args.model or "flexivit_s", "weights": args.weights}
    return run(args.source, recipe, args.out, **options)


def _replay(args: argparse.Namespace) -> int:
    from patchpack.cli.replay import run
    from patchpack.plan import recipes

    recipe = recipes.get(args.recipe, seed=args.seed, **({} if args.seq_len is None else {"seq_len": args.seq_len}))
    draws = {name: getattr(args, name) for name in ("epoch", "step", "repeat", "ordinal", "num_tokens", "part")}
    return run(args.source, recipe, args.key, out=args.out, image=args.image, target=args.target, **draws)


def _plan(args: argparse.Namespace) -> int:
    from patchpack.cli.plan import run

    options = {"seq_lens": args.seq_len, "max_images": args.max_images, "order": args.order, "limit": args.limit}
    return run(args.source, recipe=args.recipe, epoch=args.epoch, out=args.out, image=args.image, target=args.target, **options)


def _index(args: argparse.Namespace) -> int:
    from patchpack.cli.index import run

    options = {"num_workers": args.num_workers, "engine": args.engine, "update": args.update}
    return run(args.shards, out=args.out, image=args.image, target=args.target, **options)


def _pack(args: argparse.Namespace) -> int:
    from patchpack.cli.pack import run
    from patchpack.plan import recipes

    changes = {name: getattr(args, name) for name in ("seq_len", "rows", "seed") if getattr(args, name) is not None}
    recipe = recipes.get(args.recipe, **changes)
    options = {name: getattr(args, name) for name in ("epoch", "shuffle", "tail", "steps_per_shard", "num_workers", "engine")}
    return run(args.source, recipe, args.out, image=args.image, target=args.target, num_epochs=args.epochs, **options)


def _embed(args: argparse.Namespace) -> int:
    from patchpack.cli.embed import run
    from patchpack.plan import recipes

    changes = {name: getattr(args, name) for name in ("seq_len", "rows") if getattr(args, name) is not None}
    names = ("model", "weights", "image", "device", "dtype", "part_size", "num_workers")
    return run(args.source, recipes.get(args.recipe, **changes), args.out, **{name: getattr(args, name) for name in names})
