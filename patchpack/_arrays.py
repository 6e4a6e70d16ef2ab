"""Names for annotations: one numpy array type per dtype. An array whose dtype varies is annotated as `numpy.ndarray`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
IndexArray = npt.NDArray[np.intp]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntegerArray = npt.NDArray[np.integer]  # integers of any dtype, as a caller may give them
LineArray = npt.NDArray[np.int32 | np.int64]  # numbers of table lines or items: int32 if it is wide enough
