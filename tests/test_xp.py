"""The words of `keras.ops` give the same numbers as those of NumPy, which the contracts compare with the oracle."""

import os

import numpy as np
import pytest

from poolkit import WINDOW_METHODS
from poolkit.check import CASES
from poolkit.xp import keras_words, numpy_words

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras is not installed")
# Keras 3 on torch reads tensors through an older NumPy protocol than NumPy 2 wants: its affair, and harmless.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def picture(sizes, seed):
    return np.random.default_rng(seed).permutation(4 * np.prod(sizes)).reshape(2, 2, *sizes) / np.prod(sizes) - 2.0


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_a_formula_in_keras_equals_the_formula_in_numpy(name):
    method = WINDOW_METHODS[name]()
    for number, case in enumerate(CASES):
        x = picture(case.sizes, number)
        want = method.reduce(case.window.cells(x, numpy_words()), method.values())
        cells = case.window.cells(keras.ops.convert_to_tensor(x, dtype="float64"), keras_words("float64"))
        got = keras.ops.convert_to_numpy(method.reduce(cells, method.values()))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12, err_msg=str(case))


@pytest.mark.parametrize("name", [n for n in WINDOW_METHODS if WINDOW_METHODS[n]().draws])
def test_a_draw_in_keras_equals_the_draw_in_numpy(name):
    method, x = WINDOW_METHODS[name](), np.abs(picture((5, 6), 3))
    window = CASES[10].window
    want_cells = window.cells(x[..., :4], numpy_words())
    u = np.random.default_rng(4).random(want_cells.x.shape[1:])
    cells = window.cells(keras.ops.convert_to_tensor(x[..., :4], dtype="float64"), keras_words("float64"))
    got = method.sample(cells, method.values(), keras.ops.convert_to_tensor(u, dtype="float64"))
    want = method.sample(want_cells, method.values(), u)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_nan_stays_in_its_windows_in_keras_too(name):
    method, x = WINDOW_METHODS[name](), picture((4, 4), 1)
    x[0, 0, 1, 2] = np.nan
    cells = CASES[7].window.cells(keras.ops.convert_to_tensor(x, dtype="float64"), keras_words("float64"))
    y = keras.ops.convert_to_numpy(method.reduce(cells, method.values()))
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 0, 1]]
