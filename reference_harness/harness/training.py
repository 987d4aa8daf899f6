"""Training: fixed random convolutions and a read-out that is solved in closed form.

Random features with a trained linear read-out are Rahimi and Recht's method (NIPS 2007). It is used because the result
does not depend on the machine: a regularised least-squares solution has no epochs, no step sizes and no luck, so
rounding differences between CPUs stay a thousand times smaller than the smallest decision margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harness.dataset import SIDE

Array = NDArray[np.float64]

CHANNELS = (1, 64, 128, 256)
CLASSES = 10
KERNEL = 3
POOL = 2
SEED = 1
RIDGE = 0.01
CHUNK = 50


@dataclass(frozen=True)
class Weights:
    """Weights of the network.

    Attributes:
        convolutions: Kernels of shape (out, in, 3, 3), each followed by ReLU; average pooling after the last.
        readout: Matrix of shape (features, 10).
        bias: Vector of shape (10,).
    """

    convolutions: tuple[Array, ...]
    readout: Array
    bias: Array


def train(images: Array, labels: NDArray[np.int64]) -> Weights:
    """Train on images of shape (n, 1, 8, 8)."""
    random = np.random.RandomState(SEED)
    convolutions = tuple(
        # He initialisation keeps the signal's scale through ReLU layers.
        random.standard_normal((out, into, KERNEL, KERNEL)) * np.sqrt(2 / (KERNEL**2 * into))
        for into, out in pairwise(CHANNELS)
    )
    features = extract(images, convolutions)
    readout, bias = _solve(features, labels)
    return Weights(convolutions, readout, bias)


def extract(images: Array, convolutions: tuple[Array, ...]) -> Array:
    """Return the features of each image, shape (n, channels x 16)."""
    chunks = []
    for start in range(0, len(images), CHUNK):
        signal = images[start : start + CHUNK]
        for kernels in convolutions:
            signal = np.maximum(_convolve(signal, kernels), 0)
        count, channels = signal.shape[:2]
        blocks = signal.reshape(count, channels, SIDE // POOL, POOL, SIDE // POOL, POOL)
        chunks.append(blocks.mean(axis=(3, 5)).reshape(count, -1))
    return np.concatenate(chunks)


def _convolve(signal: Array, kernels: Array) -> Array:
    count, into = signal.shape[:2]
    padded = np.pad(signal, ((0, 0), (0, 0), (1, 1), (1, 1)))
    total = np.zeros((count, len(kernels), SIDE * SIDE))
    for row in range(KERNEL):
        for column in range(KERNEL):
            window = padded[:, :, row : row + SIDE, column : column + SIDE].reshape(count, into, -1)
            total += np.matmul(kernels[:, :, row, column], window)
    return total.reshape(count, len(kernels), SIDE, SIDE)


def _solve(features: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    # Ridge regression in its dual form: there are fewer samples than features.
    count = len(labels)
    targets = np.full((count, CLASSES), -1 / (CLASSES - 1))
    targets[np.arange(count), labels] = 1
    centre, offset = features.mean(axis=0), targets.mean(axis=0)
    centred = features - centre
    gram = centred @ centred.T
    ridge = RIDGE * np.trace(gram) / count
    readout = centred.T @ np.linalg.solve(gram + ridge * np.eye(count), targets - offset)
    return readout, offset - centre @ readout
