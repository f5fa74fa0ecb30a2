"""The Keras layers on the back end of this process; `test_keras.py` runs this file once for each back end."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="Keras is not installed")

from keras import layers, ops  # noqa: E402

from poolkit import WINDOW_METHODS, GeM, Soft, learn  # noqa: E402
from poolkit.keras import GlobalPooling1D, GlobalPooling2D, Pooling1D, Pooling2D, Pooling3D, swap  # noqa: E402

BACKEND = keras.backend.backend()
PICTURES = np.random.default_rng(0).normal(size=(4, 9, 8, 3)).astype("float32")


def numbers(x):
    return ops.convert_to_numpy(x)


def gradient(layer, x):
    """The gradient for x of the sum of the layer's outputs."""
    if BACKEND == "jax":
        import jax

        return numbers(jax.grad(lambda x: layer(x).sum())(x))
    x = ops.convert_to_tensor(x)
    if BACKEND == "torch":
        layer(x.requires_grad_()).sum().backward()
        return x.grad.numpy()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    return tape.gradient(y, x).numpy()


def tutorial(pool=layers.MaxPooling2D, shape=(20, 20, 3)):
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(8, 3, activation="relu"),
            pool(2),
            layers.Conv2D(8, 3, activation="relu"),
            pool(2),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(10),
        ]
    )


def test_only_the_back_end_is_loaded():
    assert ("torch" in sys.modules) == (BACKEND == "torch")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (lambda f: Pooling1D("max", 3, 2, "same", f), (6,)),
        (lambda f: Pooling1D("median", 2, data_format=f), (7,)),
        (lambda f: Pooling2D("soft", (2, 3), 1, "valid", f), (5, 4)),
        (lambda f: Pooling2D("avg", 3, (2, 1), "same", f), (6, 5)),
        (lambda f: Pooling3D("avg-topk", 2, data_format=f), (3, 4, 5)),
        (lambda f: GlobalPooling2D("gem", f), (3, 4)),
        (lambda f: GlobalPooling1D("lse", f, keepdims=True), (5,)),
    ],
)
def test_the_promised_shape_is_the_real_one(layer, sizes, data_format):
    shape = (*sizes, 2) if data_format == "channels_last" else (2, *sizes)
    made = layer(data_format)
    inputs = keras.Input(shape)
    outputs = made(inputs)
    got = made(np.ones((3, *shape), "float32"))
    assert outputs.shape == (None, *got.shape[1:]) == made.compute_output_shape((None, *shape))
    assert tuple(keras.Model(inputs, outputs)(np.ones((5, *shape), "float32")).shape) == (5, *got.shape[1:])


def test_unknown_sizes_stay_unknown():
    assert Pooling2D("max", 2).compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    inputs = keras.Input((None, None, 3))
    outputs = GlobalPooling2D("gem")(Pooling2D("avg-topk", 3, 2, "same")(Pooling2D("soft", 2)(inputs)))
    assert outputs.shape == (None, 3)
    model = keras.Model(inputs, outputs)
    for x in (PICTURES, PICTURES[:, :7, :5]):
        want = GlobalPooling2D("gem")(Pooling2D("avg-topk", 3, 2, "same")(Pooling2D("soft", 2)(x)))
        np.testing.assert_allclose(model.predict(x, verbose=0), numbers(want), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_a_config_makes_the_same_layer_again(name):
    learnable = {n: learn() for n, p in WINDOW_METHODS[name].params().items() if p.learnable}
    layer = Pooling2D(
        WINDOW_METHODS[name](**learnable), (2, 3), strides=1, padding="same", data_format="channels_first"
    )
    again = Pooling2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.method == layer.method


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_saved_model_is_the_same_model(tmp_path):
    inputs = keras.Input((9, 8, 3))
    x = Pooling2D(Soft(beta=learn(channels=3)), 2)(inputs)
    x = Pooling2D("ordinal", 2, strides=1, padding="same")(x)
    x = Pooling2D("stochastic", 2, seed=3)(x)
    model = keras.Model(inputs, GlobalPooling2D(GeM(p=learn(2.5)))(x))
    for weight in model.trainable_weights:
        weight.assign(weight + np.linspace(0.1, 0.5, int(np.prod(weight.shape)), dtype="float32").reshape(weight.shape))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    assert {w.name for w in model.trainable_weights} == {"raw_beta", "raw_logits", "raw_p"}
    np.testing.assert_array_equal(numbers(again(PICTURES)), numbers(model(PICTURES)))


def test_half_precision_is_computed_in_single():
    layer = Pooling2D(GeM(p=learn(3.0)), 2, dtype="mixed_float16")
    x = (300 + 10 * PICTURES).astype("float16")  # 300³ lies beyond float16
    y = numbers(layer(x))
    want = numbers(Pooling2D(GeM(p=learn(3.0)), 2)(x.astype("float32")))
    assert y.dtype == np.float16 and layer.raw_p.dtype == "float32"
    np.testing.assert_allclose(y, want.astype("float16"), rtol=2.0**-10)


def test_a_random_method_draws_in_training_only():
    x = np.abs(PICTURES)
    layer, twin, other = (Pooling2D("stochastic", 2, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(numbers(layer(x)), numbers(layer(x)))
    first, second = numbers(layer(x, training=True)), numbers(layer(x, training=True))
    np.testing.assert_array_equal(first, numbers(twin(x, training=True)))
    assert (first != second).mean() > 0.3 and (first != numbers(other(x, training=True))).mean() > 0.3
    assert np.isin(first, x).all()


def test_the_first_of_equals_gets_the_gradient():
    x = np.zeros((1, 2, 2, 1), "float32")
    for spelling in ("max", "min", "avg-topk:k=1"):
        assert gradient(Pooling2D(spelling, 2), x).ravel().tolist() == [1, 0, 0, 0], spelling
    many = np.zeros((1, 5, 5, 1), "float32")
    for spelling in ("max", "avg-topk:k=1"):
        assert gradient(GlobalPooling2D(spelling), many).ravel().tolist() == [1.0] + [0.0] * 24, spelling


@pytest.mark.parametrize("spelling", ["max", "soft:beta=learn", "ordinal", "stochastic"])
def test_a_compiled_fit_trains(spelling):
    keras.utils.set_random_seed(1)
    model = tutorial(lambda size: Pooling2D(spelling, size))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=BACKEND != "torch")
    own = [w for w in model.trainable_weights if w.name.startswith("raw_")]
    before = [numbers(w).copy() for w in own]
    x, y = np.random.default_rng(2).random((16, 20, 20, 3), "float32"), np.arange(16) % 10
    losses = model.fit(x, y, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all((numbers(w) != b).any() for w, b in zip(own, before, strict=True))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="does not know masks"):
        Pooling1D("max", 2)(layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 2, 0, 0]])))
    with pytest.raises(TypeError, match="floating-point"):
        Pooling2D("max", 2)(np.ones((1, 4, 4, 1), "int32"))
    with pytest.raises(ValueError, match="nearest: soft"):
        Pooling2D("sotf", 2)
    with pytest.raises(ValueError, match="strides=0"):
        Pooling2D("max", 2, strides=0)
    with pytest.raises(ValueError, match='must be "valid" or "same"'):
        Pooling2D("max", 2, padding=1)
    with pytest.raises(ValueError, match="channels_last"):
        Pooling2D("max", 2, data_format="NHWC")
    with pytest.raises(ValueError, match="larger than the picture"):
        Pooling2D("max", 5)(np.ones((1, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match="is learned for 2 channels, the input has 3"):
        Pooling2D(Soft(beta=learn(channels=2)), 2)(PICTURES)
    with pytest.raises(ValueError, match=r'Pooling2D\("ordinal", \(H, W\)\)'):
        GlobalPooling2D("ordinal")


def test_the_summary_says_the_method():
    lines = []
    tutorial(lambda size: Pooling2D("avg-topk:k=2", size)).summary(print_fn=lambda line, **_: lines.append(line))
    assert "avg_topk_pooling2d" in "\n".join(lines) and "Pooling2D" in "\n".join(lines)


def test_the_readmes_example_runs_as_printed():
    code = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8").partition("## In Keras")[2]
    said = {}
    exec(compile(code.partition("```python")[2].partition("```")[0], "README.md", "exec"), said)  # noqa: S102 - our own
    assert said["model"].output_shape == (None, 10)


def test_swap_changes_the_tutorials_pools_and_nothing_else():
    model = tutorial()
    copy = swap(model, "max")
    assert [type(a).__name__ for a in copy.layers].count("Pooling2D") == 2
    x = np.random.default_rng(2).random((2, 20, 20, 3), "float32")
    np.testing.assert_allclose(numbers(copy(x)), numbers(model(x)), rtol=1e-5, atol=1e-6)
    assert np.abs(numbers(swap(model, "min")(x)) - numbers(model(x))).max() > 1e-3
    with pytest.raises(ValueError, match="no pooling layer to replace"):
        swap(copy, "soft")
    with pytest.raises(ValueError, match="no pooling layer to replace: where='pool_x'"):
        swap(model, "soft", where=[model.layers[1].name, "pool_x"])


def test_swap_changes_a_network_of_keras():
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    copy = swap(model, "avg-topk:k=1", where="block*_pool")
    assert [a.name for a in copy.layers if type(a) is Pooling2D] == [f"block{i}_pool" for i in range(1, 6)]
    x = np.random.default_rng(2).random((1, 32, 32, 3), "float32")
    np.testing.assert_allclose(numbers(copy(x)), numbers(model(x)), rtol=1e-4, atol=1e-6)
    everywhere = swap(model, "soft")
    assert type(everywhere.layers[-1]) is GlobalPooling2D and tuple(everywhere.output_shape) == (None, 512)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_an_exported_model_answers_as_the_layer_does(tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((9, 8, 3)), Pooling2D("median", 3, 2, "same"), GlobalPooling2D("gem")])
    model.export(tmp_path / "saved", verbose=False)
    again = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(again.serve(PICTURES).numpy(), numbers(model(PICTURES)), rtol=1e-6)


@pytest.mark.parametrize("name", WINDOW_METHODS if BACKEND == "torch" else ["gem"])
def test_a_learned_number_begins_as_the_fixed_one(name):
    learnable = {n: learn() for n, p in WINDOW_METHODS[name].params().items() if p.learnable}
    learned, fixed = (Pooling2D(WINDOW_METHODS[name](**some), 2)(PICTURES) for some in (learnable, {}))
    np.testing.assert_allclose(numbers(learned), numbers(fixed), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf2onnx has no expm1, and writes a choice as a sum of products")
def test_a_model_leaves_by_onnx_with_its_numbers_for_batches_of_any_size(tmp_path):
    for module in ("onnxscript", "onnxruntime") if BACKEND == "torch" else ("jax2onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    import onnxruntime

    inputs = keras.Input((9, 8, 3))
    pooled = [layers.Flatten()(Pooling2D(name, 3, 2, "same")(inputs)) for name in WINDOW_METHODS]
    whole = [GlobalPooling2D(name)(inputs) for name in ("max", "gem:p=learn", "median")]
    model = keras.Model(inputs, [*pooled, *whole])
    model(PICTURES[:1])
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for x in (PICTURES[:1], PICTURES):
        got = session.run(None, {session.get_inputs()[0].name: x})
        for name, one, want in zip([*WINDOW_METHODS, "max", "gem", "median"], got, model(x), strict=True):
            np.testing.assert_allclose(one, numbers(want), rtol=1e-5, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(pytest.main([__file__, "-p", "no:cacheprovider", "-q", "-W", "ignore", *sys.argv[1:]]))
