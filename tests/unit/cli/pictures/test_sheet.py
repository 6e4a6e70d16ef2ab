"""Colours of the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from patchpack.cli.pictures import sheet

# Machado et al. 2009, severity 1, on linear RGB
EYES = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("eye", EYES)
def test_neighbours_differ_in_colour_for_every_eye(eye: str) -> None:
    srgb = np.array([list(bytes.fromhex(hue[1:])) for hue in (*sheet.HUES, sheet.HUES[0])]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(EYES[eye]).T).clip(0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(seen @ to_xyz.T / (0.9505, 1, 1.089), 0.009)).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 30  # a difference of 2 is seen side by side
