"""Keras's three back ends, each in a process of its own: the layers' manners, and every method's numbers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from poolkit import METHODS

BACKENDS = ("tensorflow", "jax", "torch")
TESTS = Path(__file__).parent / "keras_layers.py"


def needs(backend):
    for module in ("keras", backend):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[keras-test]'")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_layers_have_kerass_manners(backend):
    needs(backend)
    # Every operation of JAX is compiled at its first use: that takes longer than these tests compute.
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run([sys.executable, TESTS], env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_method_has_the_numbers_of_its_equation(backend):
    needs(backend)
    from poolkit.lab.keras_parity import BARS, GEOMETRIES, ask, questions

    asked = questions(list(METHODS), GEOMETRIES[:3])
    worse = [
        f"{error.asked.method}, {error.asked.where}, {error.asked.data_format}, {error.asked.dtype}: {error.worst:.1e}"
        for error in ask(backend, asked)
        if not error.worst <= BARS[error.asked.dtype]
    ]
    assert not worse, "\n".join(worse)
