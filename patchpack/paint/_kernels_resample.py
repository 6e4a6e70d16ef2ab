"""Antialiased resampling of 8-bit colour, bit for bit as in Pillow. Weights have 22 bits. Each pass is rounded to 8 bits.

A tap is an input pixel that contributes to an output pixel. The loops use vectors of integers ("lanes") explicitly, because
compilers do not vectorise plain loops over three channels and four taps.

A weight is split into two numbers: ``w = 65536 * high + low``, with ``low`` in −32768 … 32767 and ``high`` in −128 … 127. All
products then fit 16-bit multiplication, which is twice as fast as 32-bit multiplication. The sum over taps is
``sum(w * pixel) = 65536 * sum(high * pixel) + sum(low * pixel)``. This sum is computed modulo 2**32, so the sum with ``high``
is needed only modulo 2**16. Two image rows are read at a time. In the horizontal pass each row gives one output pixel. In the
vertical pass each row is one tap.
"""
# mypy: disallow-untyped-decorators=False, disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

from patchpack._arrays import Int64Array, UInt8Array, UInt32Array
from patchpack._jit import njit
from patchpack.paint._kernels_weights import HEAD, PAIR, QUAD

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.datamodel import DataModelManager
    from numba.core.typing.context import BaseContext as TypingContext
    from numba.core.typing.templates import Signature

    # the signature of an intrinsic, and the function that writes its machine code
    Lowering = tuple[Signature, Callable[[BaseContext, ir.IRBuilder, Signature, Sequence[ir.Value]], ir.Value]]

TABLE = 256 * 3  # numbers by value and channel
STRIDE = 8  # numbers that are computed at a time
NORM = 4 * 3 * STRIDE  # bytes of 24 float32 means (or stds): vectors of 8 numbers and pixels of 3 channels both divide 24
CHUNK = 32  # bytes that the vertical pass computes at a time; it may read and write this many bytes past the last requested one

# --------------------------------------------------------------------------------------------------------------- lanes

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_HALF = 1 << 21


def _vector(lane: ir.Type, n: int) -> ir.VectorType:
    return ir.VectorType(lane, n)


def _constant(lane: ir.IntType, values: Iterable[int]) -> ir.Constant:
    values = list(values)
    return ir.Constant(_vector(lane, len(values)), values)


class Lanes(types.Type):
    """A vector of integers that stays in a register while a loop runs."""

    def __init__(self, bits: int, n: int) -> None:
        super().__init__(name=f"patchpack.lanes{n}x{bits}")
        self.vector = _vector(ir.IntType(bits), n)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: DataModelManager, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


_LOWS, _HIGHS = Lanes(32, 8), Lanes(16, 16)
_PIXELS = types.Tuple((_LOWS, _HIGHS))  # two pixels of four channels; highs of even and of odd pairs of taps
_BYTES = types.Tuple((_LOWS, _LOWS, _LOWS, _LOWS, _HIGHS, _HIGHS))  # 32 bytes; lows by quarters of their 128-bit lanes


def _host_has_avx2() -> bool:
    if config.CPU_NAME or config.CPU_FEATURES:  # code is compiled for another machine
        return False
    try:
        return bool(llvmlite.binding.get_host_cpu_features().get("avx2"))
    except (AttributeError, RuntimeError):
        return False


_AVX2 = _host_has_avx2()


def _mix(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, order: Iterable[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, _constant(_I32, order))


def _by_lane(n: int, part: int, size: int) -> list[int]:
    """Return indices that interleave vectors a and b: ``a[i]``, ``b[i]``, for each i in part `part` of both 128-bit lanes.

    The vectors a and b have `n` values each. `size` is the number of values in a part.
    """
    lane = n // 2
    return [half + part * size + i + n * other for half in (0, lane) for i in range(size) for other in (0, 1)]


def _load(
    context: BaseContext,
    builder: ir.IRBuilder,
    array_type: types.Array,
    array: ir.Value,
    at: ir.Value,
    shift: int,
    to: ir.Type,
    align: int,
) -> ir.Value:
    data = context.make_array(array_type)(context, builder, array).data
    at = builder.add(at, ir.Constant(at.type, shift))
    value = builder.load(builder.bitcast(builder.gep(data, [at]), to.as_pointer()))
    value.align = align
    return value


def _spread(builder: ir.IRBuilder, word: ir.Value, n: int) -> ir.Value:
    """Return a vector that has the number `word` in all of its `n` lanes."""
    empty = ir.Constant(_vector(word.type, n), ir.Undefined)
    return _mix(builder, builder.insert_element(empty, word, ir.Constant(_I32, 0)), empty, [0] * n)


def _add_lows(builder: ir.IRBuilder, sums: ir.Value, pixels: ir.Value, part: int, lows: ir.Value) -> ir.Value:
    """Add ``low * pixel`` of two taps to `sums`, for the bytes in one half of each 128-bit lane.

    `pixels` is a vector of 32 bytes. `sums` and the result are vectors of 8 int32.
    """
    wide = builder.bitcast(_mix(builder, pixels, _constant(_I8, [0] * 32), _by_lane(32, part, 8)), _vector(_I16, 16))
    lows = builder.bitcast(_spread(builder, lows, 8), _vector(_I16, 16))
    int32s = _vector(_I32, 16)
    products = builder.mul(builder.sext(wide, int32s), builder.sext(lows, int32s))  # becomes one pmaddwd with the sum
    empty = ir.Constant(int32s, ir.Undefined)
    even, odd = (_mix(builder, products, empty, range(first, 16, 2)) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))


def _add_highs(builder: ir.IRBuilder, sums: ir.Value, pixels: ir.Value, highs: ir.Value) -> ir.Value:
    """Add ``high * pixel`` of two taps to `sums`, modulo 2**16.

    `pixels` is a vector of 32 bytes. `sums` and the result are vectors of 16 int16.
    """
    int16s = _vector(_I16, 16)
    if _AVX2:  # saturates, but a pair of highs is at most 75 together: 75 * 255 < 2**15
        kind = ir.FunctionType(int16s, [pixels.type, pixels.type])
        multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.ub.sw")
        return builder.add(sums, builder.call(multiply, [pixels, highs]))
    empty = ir.Constant(pixels.type, ir.Undefined)
    for first in (0, 1):
        pixel, high = (_mix(builder, values, empty, range(first, 32, 2)) for values in (pixels, highs))
        sums = builder.add(sums, builder.mul(builder.zext(pixel, int16s), builder.sext(high, int16s)))
    return sums


def _whole(builder: ir.IRBuilder, lows: ir.Value, highs: ir.Value, part: int) -> ir.Value:
    """Return ``lows + 65536 * highs`` for the highs in one half of each 128-bit lane."""
    zeros = _constant(_I16, [0] * 16)
    return builder.add(lows, builder.bitcast(_mix(builder, zeros, highs, _by_lane(16, part, 4)), lows.type))


def _rounded(builder: ir.IRBuilder, sums: ir.Value) -> ir.Value:
    n = sums.type.count
    low, high = _constant(_I32, [0] * n), _constant(_I32, [255] * n)
    sums = builder.ashr(sums, _constant(_I32, [22] * n))
    sums = builder.select(builder.icmp_signed("<", sums, low), low, sums)
    sums = builder.select(builder.icmp_signed(">", sums, high), high, sums)
    return builder.trunc(sums, _vector(_I8, n))


def _store(
    context: BaseContext, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value, at: ir.Value, value: ir.Value
) -> None:
    data = context.make_array(array_type)(context, builder, array).data
    builder.store(value, builder.bitcast(builder.gep(data, [at]), value.type.as_pointer())).align = 1


@intrinsic
def no_pixels(typing: TypingContext) -> Lowering:
    """Begin the sums of two pixels, one in either row. The sums begin at one half, so that the later truncation rounds."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return context.make_tuple(builder, signature.return_type, [_constant(_I32, [_HALF] * 8), _constant(_I16, [0] * 16)])

    return _PIXELS(), generate


@intrinsic
def add_taps(
    typing: TypingContext,
    pixels: types.Type,
    src: types.Type,
    upper: types.Type,
    lower: types.Type,
    weights: types.Type,
    quad: types.Type,
) -> Lowering:
    """Add four taps to the sums: the 16 bytes at `upper` and the 16 bytes at `lower`, times the four weights at `quad`."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        lows, highs = cgutils.unpack_tuple(builder, args[0])
        bytes16 = _vector(_I8, 16)
        rows = [_load(context, builder, signature.args[1], args[1], at, 0, bytes16, 1) for at in args[2:4]]
        words = [_load(context, builder, signature.args[4], args[4], args[5], i, _I32, 4) for i in (0, 1)]
        high = _load(context, builder, signature.args[4], args[4], args[5], 2, bytes16, 4)
        # two pairs of taps, channel by channel, in either row
        order = [8 * pair + channel + 4 * tap for pair in (0, 1) for channel in range(4) for tap in (0, 1)]
        taps = _mix(builder, rows[0], rows[1], order + [16 + i for i in order])
        highs = _add_highs(builder, highs, taps, _mix(builder, high, high, list(range(16)) * 2))
        for pair in (0, 1):
            lows = _add_lows(builder, lows, taps, pair, words[pair])
        return context.make_tuple(builder, signature.return_type, [lows, highs])

    return _PIXELS(_PIXELS, src, types.intp, types.intp, weights, types.intp), generate


@intrinsic
def store_pixels(typing: TypingContext, out: types.Type, upper: types.Type, lower: types.Type, pixels: types.Type) -> Lowering:
    """Store four bytes for each pixel. The next pixel overwrites the fourth byte with its own first byte."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        lows, highs = cgutils.unpack_tuple(builder, args[3])
        other = _mix(builder, highs, highs, [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11])
        done = _rounded(builder, _whole(builder, lows, builder.add(highs, other), 0))
        done = builder.bitcast(done, _vector(_I32, 2))
        for i, at in enumerate(args[1:3]):
            word = builder.extract_element(done, ir.Constant(_I32, i))
            _store(context, builder, signature.args[0], args[0], at, word)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp, _PIXELS), generate


@intrinsic
def no_bytes(typing: TypingContext) -> Lowering:
    """Begin the sums of `CHUNK` bytes of a row. The sums begin at one half, so that the later truncation rounds."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        sums = [_constant(_I32, [_HALF] * 8)] * 4 + [_constant(_I16, [0] * 16)] * 2
        return context.make_tuple(builder, signature.return_type, sums)

    return _BYTES(), generate


@intrinsic
def add_rows(
    typing: TypingContext,
    sums: types.Type,
    src: types.Type,
    upper: types.Type,
    lower: types.Type,
    weights: types.Type,
    pair: types.Type,
) -> Lowering:
    """Add two taps to the sums: `CHUNK` bytes at `upper` and at `lower`, times the two weights at `pair`."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        sums = cgutils.unpack_tuple(builder, args[0])
        rows = [_load(context, builder, signature.args[1], args[1], at, 0, _vector(_I8, 32), 1) for at in args[2:4]]
        low = _load(context, builder, signature.args[4], args[4], args[5], 0, _I32, 4)
        high = _load(context, builder, signature.args[4], args[4], args[5], 1, _I16, 4)
        high = builder.bitcast(_spread(builder, high, 16), _vector(_I8, 32))
        for half in (0, 1):
            taps = _mix(builder, rows[0], rows[1], _by_lane(32, half, 8))
            sums[4 + half] = _add_highs(builder, sums[4 + half], taps, high)
            for part in (0, 1):
                sums[2 * half + part] = _add_lows(builder, sums[2 * half + part], taps, part, low)
        return context.make_tuple(builder, signature.return_type, sums)

    return _BYTES(_BYTES, src, types.intp, types.intp, weights, types.intp), generate


@intrinsic
def store_bytes(typing: TypingContext, out: types.Type, at: types.Type, sums: types.Type) -> Lowering:
    """Store `CHUNK` bytes, in the order of the row."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        sums = cgutils.unpack_tuple(builder, args[2])
        halves = []
        for half in (0, 1):
            parts = [_rounded(builder, _whole(builder, sums[2 * half + part], sums[4 + half], part)) for part in (0, 1)]
            halves.append(_mix(builder, parts[0], parts[1], [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]))
        order = [*range(8), *range(16, 24), *range(8, 16), *range(24, 32)]
        _store(context, builder, signature.args[0], args[0], args[1], _mix(builder, halves[0], halves[1], order))
        return context.get_dummy_value()

    return types.void(out, types.intp, _BYTES), generate


@intrinsic
def word_at(typing: TypingContext, words: types.Type, at: types.Type) -> Lowering:
    """Return ``words[at]``, where `at` must not be negative. Unlike a plain index, this does not check for negative numbers."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        word = _load(context, builder, signature.args[0], args[0], args[1], 0, _I32, 4)
        return builder.zext(word, context.get_value_type(types.intp))

    return types.intp(words, types.intp), generate


@intrinsic
def byte_at(typing: TypingContext, src: types.Type, at: types.Type) -> Lowering:
    """Return ``src[at]``, where `at` must not be negative, as in `word_at`."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        byte = _load(context, builder, signature.args[0], args[0], args[1], 0, _I8, 1)
        return builder.zext(byte, context.get_value_type(types.intp))

    return types.intp(src, types.intp), generate


@intrinsic
def copy(typing: TypingContext, out: types.Type, to: types.Type, src: types.Type, at: types.Type, n: types.Type) -> Lowering:
    """Copy `n` bytes, ``src[at : at + n]``, to ``out[to : to + n]``."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        ends = [
            builder.gep(context.make_array(signature.args[i])(context, builder, args[i]).data, [args[i + 1]]) for i in (0, 2)
        ]
        cgutils.raw_memcpy(builder, ends[0], ends[1], args[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.intp, src, types.intp, types.intp), generate


@intrinsic
def standardise(
    typing: TypingContext,
    out: types.Type,
    to: types.Type,
    src: types.Type,
    at: types.Type,
    numbers: types.Type,
    norm: types.Type,
) -> Lowering:
    """Write ``(byte − mean) / std`` for `STRIDE` bytes, as float32.

    The means begin at byte `norm` of `numbers`. The stds begin `NORM` bytes after the means.
    """

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]) -> ir.Value:
        floats = _vector(ir.FloatType(), STRIDE)
        values = _load(context, builder, signature.args[2], args[2], args[3], 0, _vector(_I8, STRIDE), 1)
        values = builder.sitofp(builder.zext(values, _vector(_I32, STRIDE)), floats)
        mean, std = (
            _load(context, builder, signature.args[4], args[4], builder.add(args[5], args[5].type(shift)), 0, floats, 4)
            for shift in (0, NORM)
        )
        value = builder.fdiv(builder.fsub(values, mean), std)
        _store(context, builder, signature.args[0], args[0], args[1], value)
        return context.get_dummy_value()

    return types.void(out, types.intp, src, types.intp, numbers, types.intp), generate


if config.DISABLE_JIT:  # the same in plain Python, with every access checked

    def _words(weights: UInt32Array, at: int, n: int) -> UInt32Array:
        assert 0 <= at <= len(weights) - n, f"weights {at} … {at + n} of {len(weights)}"
        return weights[at : at + n]

    def _span(array: UInt8Array, at: int, n: int) -> UInt8Array:
        assert 0 <= at <= len(array) - n, f"bytes {at} … {at + n} of {len(array)}"
        return array[at : at + n]

    def _weights(lows: np.ndarray, highs: np.ndarray) -> Int64Array:
        lows = lows.view(np.int16).astype(np.int64)
        return lows + 65536 * highs.view(np.int8)[: len(lows)].astype(np.int64)

    def _bytes(sums: Int64Array) -> UInt8Array:
        whole: UInt8Array = np.clip(sums >> 22, 0, 255).astype(np.uint8)
        return whole

    def no_pixels() -> Int64Array:
        return np.full((2, 4), _HALF)

    def add_taps(pixels: Int64Array, src: UInt8Array, upper: int, lower: int, weights: UInt32Array, quad: int) -> Int64Array:
        words = _words(weights, quad, QUAD)
        highs = words[2:].view(np.int8).reshape(2, 4, 2)[:, 0].reshape(4)
        w = _weights(words[:2], np.ascontiguousarray(highs))
        rows = np.stack([_span(src, at, 16).reshape(4, 4) for at in (upper, lower)]).astype(np.int64)
        added: Int64Array = pixels + (rows * w[:, None]).sum(axis=1)
        return added

    def store_pixels(out: UInt8Array, upper: int, lower: int, pixels: Int64Array) -> None:
        for at, pixel in zip((upper, lower), _bytes(pixels), strict=True):
            _span(out, at, 4)[:] = pixel

    def no_bytes() -> Int64Array:
        return np.full(CHUNK, _HALF)

    def add_rows(sums: Int64Array, src: UInt8Array, upper: int, lower: int, weights: UInt32Array, pair: int) -> Int64Array:
        words = _words(weights, pair, PAIR)
        w = _weights(words[:1], words[1:])
        rows = np.stack([_span(src, at, CHUNK) for at in (upper, lower)]).astype(np.int64)
        added: Int64Array = sums + (rows * w[:, None]).sum(axis=0)
        return added

    def store_bytes(out: UInt8Array, at: int, sums: Int64Array) -> None:
        _span(out, at, CHUNK)[:] = _bytes(sums)

    def word_at(words: UInt32Array, at: int) -> int:
        return int(_words(words, at, 1)[0])

    def byte_at(src: UInt8Array, at: int) -> int:
        return int(_span(src, at, 1)[0])

    def copy(out: UInt8Array, to: int, src: UInt8Array, at: int, n: int) -> None:
        _span(out, to, n)[:] = _span(src, at, n)

    def standardise(out: UInt8Array, to: int, src: UInt8Array, at: int, numbers: UInt8Array, norm: int) -> None:
        mean, std = (_span(numbers, norm + shift, 4 * STRIDE).view(np.float32) for shift in (0, NORM))
        _span(out, to, 4 * STRIDE)[:] = ((_span(src, at, STRIDE).astype(np.float32) - mean) / std).view(np.uint8)


# -------------------------------------------------------------------------------------------------------------- passes


@njit
def _horizontal(
    src: UInt8Array,
    upper: int,
    lower: int,
    table: UInt32Array,
    words: int,
    first: int,
    stop: int,
    out: UInt8Array,
    above: int,
    below: int,
) -> None:
    """Resample the output pixels ``first … stop − 1`` of two rows in the horizontal pass.

    The source rows begin at `upper` and `lower` in `src`, with 4 bytes per pixel. The output rows begin at `above` and `below`
    in `out`, with 3 bytes per pixel. `words` is the number of words in `table` per output pixel.
    """
    if words == HEAD + QUAD:  # bilinear to half the size and more: without an inner loop it is up to a fifth faster
        for x in range(first, stop):
            word = x * (HEAD + QUAD)
            at = word_at(table, word)
            pixels = add_taps(no_pixels(), src, upper + at, lower + at, table, word + HEAD)
            store_pixels(out, above + 3 * x, below + 3 * x, pixels)
        return
    if words == HEAD + 2 * QUAD:  # the same for bicubic
        for x in range(first, stop):
            word = x * (HEAD + 2 * QUAD)
            at = word_at(table, word)
            pixels = add_taps(no_pixels(), src, upper + at, lower + at, table, word + HEAD)
            pixels = add_taps(pixels, src, upper + at + 16, lower + at + 16, table, word + HEAD + QUAD)
            store_pixels(out, above + 3 * x, below + 3 * x, pixels)
        return
    for x in range(first, stop):
        pixels = no_pixels()
        at = word_at(table, x * words)
        for word in range(x * words + HEAD, (x + 1) * words, QUAD):
            pixels = add_taps(pixels, src, upper + at, lower + at, table, word)
            at += 16
        store_pixels(out, above + 3 * x, below + 3 * x, pixels)


@njit
def _vertical(
    src: UInt8Array, rows: Int64Array, weights: UInt32Array, word: int, first: int, stop: int, limit: int, out: UInt8Array
) -> None:
    """Write the bytes ``first … stop − 1`` of an output row to `out` in the vertical pass.

    For each tap, `rows` has the index in `src` at which the source row of the tap begins. The weights begin at `word` in
    `weights`. A source row has `limit` bytes, at least `CHUNK`.
    """
    for start in range(first, stop, CHUNK):
        at = min(start, limit - CHUNK)
        sums = no_bytes()
        for pair in range(len(rows) // 2):
            sums = add_rows(sums, src, rows[2 * pair] + at, rows[2 * pair + 1] + at, weights, word + PAIR * pair)
        store_bytes(out, at, sums)


@njit
def _emit(
    line: UInt8Array,
    places: Int64Array,
    row: int,
    y: int,
    tall: int,
    wide: int,
    mirrored: bool,
    numbers: UInt8Array,
    size: int,
    out: UInt8Array,
) -> None:
    """Write a row of pixels into the patches of grid row `row`. In each patch the pixels become row `y`.

    `size` is the number of bytes of an output number. The other arguments are as in `horizontal_first`.
    """
    step = -3 if mirrored else 3
    for col in range(places.shape[1]):
        place = places[row, col]
        if place < 0:
            continue
        at, to = 3 * wide * col, 3 * wide * (tall * place + y) * size
        if size == 1 and not mirrored:
            copy(out, to, line, at, 3 * wide)
            continue
        if mirrored:
            at += 3 * (wide - 1)
        if size == 1:
            for _ in range(wide):
                copy(out, to, line, at, 3)
                at, to = at + step, to + 3
        elif size == 2:
            for _ in range(wide):
                for channel in range(3):
                    copy(out, to + 2 * channel, numbers, 2 * (3 * byte_at(line, at + channel) + channel), 2)
                at, to = at + step, to + 6
        elif not mirrored and len(numbers) > 4 * TABLE:  # gives the same numbers faster than look-ups, which are one by one
            whole = 3 * wide // STRIDE * STRIDE
            for i in range(0, whole, STRIDE):
                standardise(out, to + 4 * i, line, at + i, numbers, 4 * TABLE + 4 * i % NORM)
            for i in range(whole, 3 * wide):
                copy(out, to + 4 * i, numbers, 4 * (3 * byte_at(line, at + i) + i % 3), 4)
        else:
            for _ in range(wide):
                for channel in range(3):
                    copy(out, to + 4 * channel, numbers, 4 * (3 * byte_at(line, at + channel) + channel), 4)
                at, to = at + step, to + 12


@njit
def horizontal_first(
    src: UInt8Array, base: int, pitch: int, source_width: int, first: int, stop: int, done: int, last_row: int,
    width: int, x_taps: int, x_table: UInt32Array, y_starts: Int64Array, y_table: UInt32Array,
    places: Int64Array, tall: int, wide: int, mirrored: bool, rows: Int64Array, between: UInt8Array, need: UInt8Array,
    line: UInt8Array, numbers: UInt8Array, size: int, out: UInt8Array,
) -> int:  # fmt: skip
    """Make the output rows ``first … stop − 1``, with the horizontal pass first, and write them into the kept patches.

    Each source row is resampled once, just before it is used, and for the columns of kept patches only.

    Args:
        src: uint8, the source, with 4 bytes per pixel.
        base: index in `src` at which source row 0 begins.
        pitch: bytes from one source row to the next.
        source_width: pixels in a source row.
        first: first output row.
        stop: the output row after the last one.
        done: number of source rows that earlier calls with the same `between` have resampled or skipped. 0 in the first call.
        last_row: number of the last source row.
        width: width of the result in pixels, without padding.
        x_taps: number of horizontal taps, a multiple of four.
        x_table: horizontal weights (see `_kernels_weights.tables`). All taps are within `source_width`.
        y_starts: int64 ``[height]``, the first vertical tap of each output row.
        y_table: vertical weights (see `_kernels_weights.tables`).
        places: int64 ``[rows, cols]``, the number of each patch among the kept patches in `out`, −1 for a dropped patch.
        tall: height of a patch in pixels.
        wide: width of a patch in pixels.
        mirrored: True writes the pixels of a patch from right to left, False from left to right. With True, the columns of
            `places` must be mirrored too.
        rows: int64 ``[vertical taps]``, working memory.
        between: uint8 ``[(vertical taps + 2) * n]`` with ``n >= 3 * width + CHUNK``, the resampled source rows.
        need: uint8 ``[cols]``, working memory.
        line: uint8 ``[3 * cols * wide + CHUNK]``, working memory for one output row.
        numbers: uint8 ``[256 * 3 * size]``, the output number of each pixel value and channel. Not read if `size` is 1. For
            float32, `NORM` bytes of means and `NORM` bytes of stds may follow, in the order red, green, blue, red, …. The
            output numbers are then computed from these means and stds, which is faster.
        size: bytes of an output number: 1, 2 or 4.
        out: uint8 ``[kept * tall * wide * 3 * size]``, the kept patches.

    Returns:
        The value of `done` for the next call.
    """
    height, cols, words = len(y_starts), places.shape[1], HEAD + x_taps // 4 * QUAD
    taps = len(rows)
    depth = taps + 2
    length = len(between) // depth
    reach = first  # output rows up to this one use the current source rows
    upper_patches = lower_patches = -1
    for y in range(first, stop):
        patches = y // tall
        if not _any_kept(places, patches):
            continue
        if y >= height:  # padding
            line[:] = 0
            _emit(line, places, patches, y - patches * tall, tall, wide, mirrored, numbers, size, out)
            continue
        top = y_starts[y]
        done = max(done, top)
        reach = max(reach, y)
        while done < min(top + taps, last_row + 1):
            while reach + 1 < height and y_starts[reach + 1] <= done + 1:
                reach += 1
            if patches != upper_patches or reach // tall != lower_patches:
                upper_patches, lower_patches = patches, reach // tall
                for col in range(cols):
                    need[col] = 0
                    for patch_row in range(upper_patches, lower_patches + 1):
                        need[col] |= places[patch_row, col] >= 0
            upper = base + done * pitch
            lower = base + min(done + 1, last_row) * pitch
            above, below = done % depth * length, (done + 1) % depth * length
            col = 0
            while col < cols:
                if need[col]:
                    left = col * wide
                    while col < cols and need[col]:
                        col += 1
                    _horizontal(src, upper, lower, x_table, words, left, min(col * wide, width), between, above, below)
                col += 1
            done = min(done + 2, last_row + 1)
        for k in range(taps):
            rows[k] = (top + k) % depth * length
        col = 0
        while col < cols:
            if places[patches, col] >= 0:
                left = col * wide
                while col < cols and places[patches, col] >= 0:
                    col += 1
                _vertical(between, rows, y_table, y * taps // 2 * PAIR, 3 * left, 3 * min(col * wide, width), length, line)
            col += 1
        line[3 * width : 3 * cols * wide] = 0
        _emit(line, places, patches, y - patches * tall, tall, wide, mirrored, numbers, size, out)
    return done


@njit
def vertical_first(
    src: UInt8Array, base: int, pitch: int, source_width: int, first: int, stop: int, done: int, last_row: int,
    width: int, x_taps: int, x_table: UInt32Array, y_starts: Int64Array, y_table: UInt32Array,
    places: Int64Array, tall: int, wide: int, mirrored: bool, rows: Int64Array, between: UInt8Array, need: UInt8Array,
    line: UInt8Array, numbers: UInt8Array, size: int, out: UInt8Array,
) -> int:  # fmt: skip
    """Make output rows like `horizontal_first`, but with the vertical pass first.

    The vertical pass reads the source directly, for the columns of kept patches only. The arguments are as in
    `horizontal_first`, with three differences. `source_width` is at least 8. `between` is one row, uint8 ``[n]`` with
    ``n >= 4 * (source_width + x_taps) + CHUNK``. `done` and `need` are not used.
    """
    height, cols, words = len(y_starts), places.shape[1], HEAD + x_taps // 4 * QUAD
    taps = len(rows)
    for y in range(first, stop):
        patches = y // tall
        if y >= height:  # padding
            line[:] = 0
            _emit(line, places, patches, y - patches * tall, tall, wide, mirrored, numbers, size, out)
            continue
        for k in range(taps):
            rows[k] = base + min(y_starts[y] + k, last_row) * pitch  # weights past the last row are zero
        col = 0
        while col < cols:
            if places[patches, col] >= 0:
                left = col * wide
                while col < cols and places[patches, col] >= 0:
                    col += 1
                right = min(col * wide, width)
                if left < right:
                    start = word_at(x_table, left * words)
                    end = min(word_at(x_table, (right - 1) * words) + 4 * x_taps, 4 * source_width)
                    _vertical(src, rows, y_table, y * taps // 2 * PAIR, start, end, 4 * source_width, between)
                    _horizontal(between, 0, 0, x_table, words, left, right, line, 0, 0)
            col += 1
        line[3 * width : 3 * cols * wide] = 0
        _emit(line, places, patches, y - patches * tall, tall, wide, mirrored, numbers, size, out)
    return done


@njit
def _any_kept(places: Int64Array, row: int) -> bool:
    kept = False
    for col in range(places.shape[1]):
        kept |= places[row, col] >= 0
    return kept
