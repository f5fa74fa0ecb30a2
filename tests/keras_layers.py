"""The Keras layers on the back end of this process; `test_keras.py` runs this file once for each back end."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="Keras is not installed")

from keras import layers, ops  # noqa: E402

from poolkit import HEADS, MAP_METHODS, WINDOW_METHODS, GeM, MapShape, Soft, learn, method  # noqa: E402
from poolkit.keras import (  # noqa: E402
    GlobalPooling1D,
    GlobalPooling2D,
    Head,
    MapPooling1D,
    MapPooling2D,
    MapPooling3D,
    Pooling1D,
    Pooling2D,
    Pooling3D,
    swap,
)

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


# JAX compiles every operation of each; the model of methods on maps below shows it their shapes.
ON_MAPS = (
    []
    if BACKEND == "jax"
    else [
        (lambda f: Pooling2D("blur", 3, 2, "SAME", f), (6, 5)),
        (lambda f: Pooling1D("wavelet", 2, data_format=f), (7,)),
        (lambda f: MapPooling1D("fractional", data_format=f), (9,)),
        (lambda f: MapPooling2D("spp:levels=2-1", data_format=f), (4, 5)),
        (lambda f: MapPooling2D("ppm:levels=1-2", data_format=f), (4, 5)),
        (lambda f: MapPooling3D("inter-map", data_format=f), (2, 3, 2)),
        (lambda f: Head("netvlad:clusters=3", f), (4, 5)),
        (lambda f: Head("compact-bilinear:d=7", f), (5,)),
    ]
)


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
        *ON_MAPS,
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


@pytest.mark.parametrize("where", [{"pool_size": 5}, {"pool_size": (1, 5), "strides": 2}])
def test_a_picture_smaller_than_the_window_is_refused_where_sizes_are_unknown(where):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, Pooling2D("soft", **where)(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    for n in (9, 8):  # of the second size on, TensorFlow draws one graph for all
        assert len(model.predict(np.ones((1, n, n, 3), "float32"), verbose=0)) == 1
    with pytest.raises(Exception, match="is larger than the picture"):
        model.predict(np.ones((1, 3, 3, 3), "float32"), verbose=0)


def on_maps(method, **arguments):
    """The layer of a method on whole maps, with a window where it takes one."""
    if method.kind == "head":
        return Head(method, **arguments)
    window = {"pool_size": 2, "padding": "same"} if method.takes_window != "never" else {}
    return MapPooling2D(method, **window, **arguments)


def all_on_maps():
    """Methods on whole maps with few numbers; JAX compiles each for a second: of them a part, one of each kind."""
    small = {
        "ppm": "ppm:norm=none",
        "compact-bilinear": "compact-bilinear:d=16",
        "netvlad": "netvlad:clusters=3",
        "superpixel": "superpixel:segments=4",
    }
    some = ("aps", "s3", "fractional", "lip", "superpixel", "roi-align", "compact-bilinear", "attention")
    return [method(small.get(n, n)) for n in (some if BACKEND == "jax" else [*MAP_METHODS, *HEADS])]


def further_inputs(method):
    """The shape of a method's further input, if it wants one, and a batch of 4 of them."""
    numbers = np.random.default_rng(1)
    if method.takes == ("labels",):
        return (9, 8), numbers.integers(-1, 5, (4, 9, 8)).astype("int32")
    if method.takes == ("boxes",):
        return (method.boxes, 4), numbers.uniform(-2, 9, (4, method.boxes, 4)).astype("float32")
    return None, None


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_a_model_of_methods_on_maps_trains_takes_any_batch_and_is_saved_as_it_is(tmp_path):
    # With fewer channels or larger noise a rectifier of few cells is sometimes shut: its weights stay where they are.
    inputs, methods = [keras.Input((9, 8, 8))], all_on_maps()
    pictures, outputs = [np.random.default_rng(2).normal(size=(4, 9, 8, 8)).astype("float32")], []
    for each in methods:
        shape, values = further_inputs(each)
        inputs += [keras.Input(shape, dtype=values.dtype.name)] if shape else []
        pictures += [values] if shape else []
        outputs.append(on_maps(each)(inputs[0], *(inputs[-1:] if shape else [])))
    model = keras.Model(inputs, outputs)
    numbers_of = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(weight + numbers_of.normal(0, 0.1, weight.shape).astype("float32"))
    # XLA would compile for longer than this; the graph of TensorFlow is what knows no batch.
    model.compile("sgd", "mse", jit_compile=BACKEND == "jax")
    before = [numbers(weight).copy() for weight in model.weights]
    targets = [numbers_of.normal(size=(4, *one.shape[1:])).astype("float32") for one in outputs]
    model.fit(pictures, targets, batch_size=2, verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        assert (numbers(weight) != old).any() == weight.trainable, weight.path
    got = model.predict(pictures, verbose=0, batch_size=3)
    for each, one, symbol in zip(methods, got, outputs, strict=True):
        assert (None, *one.shape[1:]) == symbol.shape, each
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    for each, one, other in zip(methods, got, again.predict(pictures, verbose=0, batch_size=4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=str(each))


@pytest.mark.parametrize("name", [*MAP_METHODS, *HEADS])
def test_a_config_makes_the_same_layer_on_maps_again(name):
    layer = on_maps(method(name), data_format="channels_first", name="mine")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.method == layer.method


@pytest.mark.parametrize("name", ["lip:logit=bottleneck", "netvlad", "compact-bilinear", "attention"])
def test_weights_start_as_their_method_says(name):
    layer = Head(name) if method(name).kind == "head" else MapPooling2D(name, 2)
    layer.build((None, 9, 8, 16))
    declared = layer.method.weights(MapShape(16, 2, (9, 8), getattr(layer, "window", None)))
    assert [w.name for w in layer.weights if w.trainable] == [n for n, w in declared.items() if w.learned]
    for key, want in declared.items():
        got = numbers(getattr(layer, key))
        assert got.shape == want.shape
        if want.start == "constant":
            assert (got == want.scale).all()
        elif want.start == "uniform":
            assert np.abs(got).max() <= want.scale and (got.size < 99 or np.abs(got).max() > 0.9 * want.scale)
        elif want.start == "normal":
            assert got.size < 99 or abs(got.std() / want.scale - 1) < 0.3
        elif want.start == "sign":
            assert set(got.tolist()) == {-1.0, 1.0}
        else:
            assert got.dtype == np.int32 and 0 <= got.min() and want.scale / 2 < got.max() < want.scale


def test_a_method_on_maps_computes_half_precision_in_single_and_keeps_its_boxes():
    boxes = np.array([[[1000.3, 1000.3, 1004.8, 1005.1]]], "float32")  # float16 knows every half there
    x = PICTURES[:1].astype("float16")
    layer = MapPooling2D("roi-align:boxes=1,bins=2,scale=0.005", dtype="mixed_float16")
    want = MapPooling2D("roi-align:boxes=1,bins=2,scale=0.005")(x.astype("float32"), boxes)
    y = numbers(layer(x, boxes))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, numbers(want).astype("float16"), rtol=2.0**-10)
    pooled = Pooling2D("lip", 2, dtype="mixed_float16")
    assert numbers(pooled(x)).dtype == np.float16 and pooled.last.dtype == "float32"


def test_random_methods_on_maps_draw_in_training_only():
    for spelling in ("s3", "fractional", "spectral:keep=0.0"):
        layer, twin = (Pooling2D(spelling, 2, seed=3) for _ in range(2))
        np.testing.assert_array_equal(numbers(layer(PICTURES)), numbers(layer(PICTURES)))
        first, second = numbers(layer(PICTURES, training=True)), numbers(layer(PICTURES, training=True))
        np.testing.assert_array_equal(first, numbers(twin(PICTURES, training=True)))
        assert (first != second).any(), spelling


def test_the_first_of_equals_gets_the_gradient_on_maps_too():
    x = np.zeros((1, 4, 4, 1), "float32")
    assert gradient(Head("mac"), x).ravel().tolist() == [1.0] + [0.0] * 15
    assert gradient(MapPooling2D("spp:levels=1"), x).ravel().tolist() == [1.0] + [0.0] * 15


def test_mil_attention_takes_masks_and_others_refuse_them():
    words = np.array([[1, 2, 0, 0], [3, 1, 2, 4]])
    table, head = layers.Embedding(5, 3, mask_zero=True), Head("mil-attention:width=4")
    masked = numbers(head(table(words)))
    plain = numbers(table(words)).copy()
    np.testing.assert_allclose(masked[0], numbers(head(plain[:1, :2]))[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked, numbers(head(plain, words != 0)), rtol=1e-6)
    np.testing.assert_allclose(masked[1], numbers(head(plain))[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="does not know masks"):
        Pooling1D("blur", 2)(table(words))


def test_layers_share_a_choice():
    layer, other = Pooling2D("aps", 2), Pooling2D("aps", 2)
    chosen = layer.choice(PICTURES)
    np.testing.assert_array_equal(numbers(layer(PICTURES, chosen)), numbers(layer(PICTURES)))
    assert (numbers(other(-PICTURES[::-1], chosen)) != numbers(other(-PICTURES[::-1]))).any()
    with pytest.raises(TypeError, match="makes no choice"):
        Pooling2D("blur", 2).choice(PICTURES)


def test_maps_of_unknown_sizes():
    assert Pooling2D("blur", 2).compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    assert MapPooling2D("spp").compute_output_shape((None, None, None, 3)) == (None, 30, 3)
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, Head("netvlad:clusters=3")(Pooling2D("blur", 2)(inputs)))
    assert model.output_shape == (None, 12)
    small, large = (np.ones((2, *sizes, 4), "float32") for sizes in ((6, 4), (9, 8)))
    assert model.predict(small, verbose=0).shape == (2, 12)
    if BACKEND == "tensorflow":  # of the second size on, it draws one graph for all
        with pytest.raises(ValueError, match="must know the sizes of its maps"):
            model.predict(large, verbose=0)
    else:
        assert model.predict(large, verbose=0).shape == (2, 12)
    with pytest.raises(ValueError, match=r"keras.Input\(\(H, W, C\)\)"):
        Head("attention")(inputs)


def test_methods_on_maps_refuse_what_they_cannot_pool():
    with pytest.raises(ValueError, match=r'takes no window\n  write MapPooling2D\("spp"\)'):
        Pooling2D("spp", 2)
    with pytest.raises(ValueError, match=r'wants a window\n  write Pooling2D\("blur", 2\)'):
        MapPooling2D("blur")
    with pytest.raises(ValueError, match="defined for 2 spatial axes, not for 3"):
        MapPooling3D("ppm")
    with pytest.raises(TypeError, match=r"its layer: Pooling2D\('max'"):
        Head("max")
    with pytest.raises(TypeError, match=r"its layer: Head\('mac'"):
        GlobalPooling2D("mac")
    with pytest.raises(ValueError, match="the stride must be 2"):
        Pooling2D("wavelet", 3)(PICTURES)
    with pytest.raises(TypeError, match=r"called as layer\(x, labels\), got 1 inputs"):
        MapPooling2D("superpixel")(PICTURES)
    for labels in (np.zeros((4, 8, 9), "int32"), np.zeros((1, 9, 8), "int32"), np.zeros((4, 9), "int32")):
        with pytest.raises(ValueError, match=r"superpixel: labels of shape .* for maps that want \(4, 9, 8\)"):
            MapPooling2D("superpixel")(PICTURES, labels)
    with pytest.raises(ValueError, match=r"for maps that want \(None, 9, 8\)"):
        MapPooling2D("superpixel")(keras.Input((9, 8, 3)), keras.Input((8, 9), dtype="int32"))
    with pytest.raises(TypeError, match="floating-point"):
        Head("mac")(np.ones((1, 4, 4, 1), "int32"))


def test_mixed_evaluates_each_channel_by_what_it_drew_more_often(tmp_path):
    x = np.random.default_rng(4).normal(size=(5, 4, 4, 6)).astype("float32")
    for form, pictures in (("channels_last", x), ("channels_first", x.transpose(0, 3, 1, 2))):
        layer = Pooling2D("mixed:test=frequency", 2, data_format=form, seed=1)
        top, mean = (numbers(Pooling2D(name, 2, data_format=form)(pictures)) for name in ("max", "avg"))
        np.testing.assert_allclose(numbers(layer(pictures)), mean, rtol=1e-6, atol=1e-6)
        drawn = numbers(layer(pictures, training=True))
        own = (0, 1, 2) if form == "channels_last" else (0, 2, 3)
        want = np.where(np.isclose(drawn, top, rtol=0, atol=1e-6), 1, -1).sum(own) // 4
        np.testing.assert_array_equal(numbers(layer.balance), want)
        assert {-1, 1} == set(np.sign(want)), "the seed shows only one of the two"
        often = (want > 0).reshape((-1,) if form == "channels_last" else (-1, 1, 1))
        np.testing.assert_allclose(numbers(layer(pictures)), np.where(often, top, mean), rtol=1e-6, atol=1e-6)
    model = keras.Sequential([keras.Input((4, 4, 6)), Pooling2D("mixed:test=frequency", 2, seed=1), layers.Flatten()])
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((5, 24), "float32"), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [w.name for w in again.non_trainable_weights] == ["balance"] and not again.trainable_weights
    assert numbers(model.layers[0].balance).any()
    np.testing.assert_array_equal(numbers(again.layers[0].balance), numbers(model.layers[0].balance))


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


def test_another_process_loads_a_saved_model_after_the_import_that_the_docs_name(tmp_path):
    keras.Sequential([keras.Input((4, 4, 3)), Pooling2D("soft", 2), Head("mac")]).save(tmp_path / "model.keras")
    load = f"keras.saving.load_model({str(tmp_path / 'model.keras')!r}, safe_mode=True)"
    said = "import poolkit.keras  # before load_model\n"
    root = Path(__file__).parents[1]
    for text in (root / "docs/api/keras.md").read_text(encoding="utf-8"), f"{Pooling2D.__doc__}\n":
        assert said.strip() in text
    code = f"import keras\n{said}print({load}.output_shape)"
    paths = os.pathsep.join([str(root / "src"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": BACKEND}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "(None, 3)" in done.stdout, done.stderr


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


@pytest.mark.parametrize("spelling", ["max", "avg-topk:k=2", "soft", "edscw", "ada", "dpp", "median"])
@pytest.mark.parametrize(
    "layer, sizes",
    [(Pooling1D, (11,)), (Pooling2D, (7, 9)), (Pooling3D, (3, 5, 4))],
)
def test_a_channel_knows_nothing_of_those_beside_it(layer, sizes, spelling):
    # The cells of many channels are taken in another way than those of few: see `tiles`.
    x = np.random.default_rng(2).normal(size=(2, *sizes, 66)).astype("float32")
    many, few = layer(spelling, 2), layer(spelling, 2)
    for found, alone in [(numbers(many(x)), numbers(few(x[..., :3]))), (gradient(many, x), gradient(few, x[..., :3]))]:
        assert found.shape[-1] == 66
        np.testing.assert_allclose(found[..., :3], alone, rtol=0, atol=1e-6 * np.abs(alone).max())


def test_a_quotient_has_all_its_derivatives():
    from poolkit.keras_words import divide

    y = np.array([0.5, 4.0], "float32")
    if BACKEND == "torch":
        pytest.skip("torch's own quotient")
    if BACKEND == "jax":
        import jax

        orders = [lambda y: divide(3.0, y)]
        for _ in range(3):
            orders.append(jax.grad(lambda y, f=orders[-1]: f(y).sum()))
        found = [f(y) for f in orders]
    else:
        import tensorflow as tf

        given, found = tf.constant(y), []
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(given)
            found.append(divide(3.0, given))
            for _ in range(3):
                found.append(tape.gradient(found[-1], given))
    for order, power in enumerate([1.0, -1.0, 2.0, -6.0]):
        np.testing.assert_allclose(found[order], 3 * power / y ** (order + 1), rtol=1e-6)


@pytest.mark.parametrize("spelling", ["max", "soft:beta=learn", "ordinal", "stochastic", "lip", "s3"])
def test_a_compiled_fit_trains(spelling):
    keras.utils.set_random_seed(1)
    model = tutorial(lambda size: Pooling2D(spelling, size))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=BACKEND != "torch")
    own = [w for w in model.trainable_weights if w.name.startswith(("raw_", "last"))]
    before = [numbers(w).copy() for w in own]
    x, y = np.random.default_rng(2).random((16, 20, 20, 3), "float32"), np.arange(16) % 10
    losses = model.fit(x, y, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert min(losses[1:]) < losses[0]
    assert all((numbers(w) != b).any() for w, b in zip(own, before, strict=True))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on the others a graph meets no operators of its own")
def test_every_window_method_computes_in_a_graph_what_it_does_outside():
    x = np.random.default_rng(5).uniform(0.1, 2.0, (2, 7, 6, 3)).astype("float32")
    methods = [method(name) for name in WINDOW_METHODS]
    methods += [
        cls(**{name: learn() for name, declared in cls.params().items() if declared.learnable})
        for cls in WINDOW_METHODS.values()
        if any(declared.learnable for declared in cls.params().values())
    ]
    inputs = keras.Input((7, 6, 3))
    pools = [Pooling2D(one, 2) for one in methods]
    model = keras.Model(inputs, [pool(inputs) for pool in pools])
    for one, pool, got in zip(methods, pools, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(got, numbers(pool(x)), rtol=1e-5, atol=1e-6, err_msg=str(one))


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
    with pytest.raises(ValueError, match="the number of channels must be known"):
        Pooling2D("mixed:test=frequency", 2)(keras.Input((4, 4, None)))


def test_the_layer_that_an_error_names_can_be_made():
    def refused(make):
        with pytest.raises(TypeError, match="its layer: ") as error:
            make()
        return eval(str(error.value).rpartition("its layer: ")[2])  # noqa: S307 - our own

    assert type(refused(lambda: GlobalPooling1D("blur"))) is MapPooling1D
    assert type(refused(lambda: GlobalPooling1D("spp"))) is MapPooling1D
    assert type(refused(lambda: GlobalPooling1D("strip"))) is MapPooling2D, "two dimensions alone"
    assert type(refused(lambda: MapPooling3D("max", 2))) is Pooling3D
    for name in (*MAP_METHODS, *WINDOW_METHODS):
        assert refused(lambda name=name: Head(name)).method == method(name)


def test_what_a_call_refuses_is_refused_where_a_model_is_built():
    words = keras.Input((6,), dtype="int32")
    masked, pictures = layers.Embedding(5, 3, mask_zero=True)(words), keras.Input((6, 3), dtype="int32")
    for layer in (Pooling1D("max", 2), GlobalPooling1D("avg"), MapPooling1D("spp:levels=1"), Head("mac")):
        with pytest.raises(ValueError, match="does not know masks"):
            layer(masked)
        with pytest.raises(TypeError, match="floating-point"):
            type(layer).from_config(layer.get_config())(pictures)
    with pytest.raises(TypeError, match=r"called as layer\(x, labels\), got 1 inputs"):
        MapPooling1D("superpixel")(keras.Input((6, 3)))
    head = Head("mil-attention:width=4")
    model, x = keras.Model(words, head(masked)), np.array([[1, 2, 0, 0, 0, 0]])
    plain = model.layers[1](x[:, :2])
    np.testing.assert_allclose(numbers(model(x)), numbers(head(numbers(plain).copy())), rtol=1e-5, atol=1e-6)


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
    assert not copy.compiled
    model.compile("adam", "mse")
    assert swap(model, "max").compiled
    with pytest.raises(ValueError, match="no pooling layer to replace"):
        swap(copy, "soft")
    with pytest.raises(ValueError, match="no pooling layer to replace: where='pool_x'"):
        swap(model, "soft", where=[model.layers[1].name, "pool_x"])


def test_swap_puts_methods_on_maps_where_windows_were():
    inputs = keras.Input((12, 12, 3))
    x = layers.MaxPooling2D(3, 2, padding="same", name="mine")(layers.Conv2D(4, 3, padding="same")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    copy = swap(model, "lip")
    assert [type(a).__name__ for a in copy.layers[2:]] == ["MapPooling2D", "GlobalAveragePooling2D"]
    assert copy.get_layer("mine").output.shape == model.get_layer("mine").output.shape
    back = swap(copy, "max", where="mine")
    pictures = np.random.default_rng(2).random((2, 12, 12, 3), "float32")
    np.testing.assert_allclose(numbers(back(pictures)), numbers(model(pictures)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="the stride must be 2"):
        swap(keras.Sequential([keras.Input((9, 9, 3)), layers.MaxPooling2D(3)]), "wavelet")
    with pytest.raises(ValueError, match="pools whole maps, and blur has windows"):
        swap(model, "blur", where=layers.GlobalAveragePooling2D)
    for unfit in ("mac", "spp"):
        with pytest.raises(TypeError, match=f"{unfit} is a"):
            swap(model, unfit)


def test_swap_changes_a_network_of_keras():
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    copy = swap(model, "avg-topk:k=1", where="block*_pool")
    assert [a.name for a in copy.layers if type(a) is Pooling2D] == [f"block{i}_pool" for i in range(1, 6)]
    x = np.random.default_rng(2).random((1, 32, 32, 3), "float32")
    np.testing.assert_allclose(numbers(copy(x)), numbers(model(x)), rtol=1e-4, atol=1e-6)
    everywhere = swap(model, "soft")
    assert type(everywhere.layers[-1]) is GlobalPooling2D and tuple(everywhere.output_shape) == (None, 512)


def test_swap_copies_models_with_plain_operations():
    words = keras.Input((6,), dtype="int32")
    inputs = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D(2)(inputs / 255.0)
    y = ops.relu(layers.Conv2D(3, 1)(x)) + x
    z = layers.Dense(3)(layers.Embedding(5, 4, mask_zero=True)(words))
    model = keras.Model([inputs, words], [layers.GlobalAveragePooling2D()(ops.mean(y, axis=1, keepdims=True)), z])
    feed = [np.random.default_rng(2).random((2, 8, 8, 3), "float32"), np.array([[1, 2, 0, 0, 0, 0]] * 2)]
    for got, want in zip(swap(model, "max", where=layers.MaxPooling2D)(feed), model(feed), strict=True):
        np.testing.assert_allclose(numbers(got), numbers(want), rtol=1e-5, atol=1e-6)


def test_swap_keeps_what_a_layer_derived_from_its_weights():
    scaled = layers.Normalization()
    scaled.adapt(100 + 30 * PICTURES)
    model = keras.Sequential([keras.Input((9, 8, 3)), scaled, layers.MaxPooling2D(2), layers.Flatten()])
    x = 100 + 30 * PICTURES
    np.testing.assert_allclose(
        swap(model, "max").predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )


def test_swap_names_layers_after_their_method_unless_somebody_named_them():
    chosen = layers.MaxPooling2D(2, name="mine")
    model = keras.Sequential([keras.Input((8, 8, 3)), Pooling2D("avg-topk:k=2", 2), chosen, Pooling2D("blur", 1)])
    first, second, third = (layer.name for layer in swap(model, "median", where=lambda layer: True).layers)
    assert first.startswith("median_pooling2d") and second == "mine" and third.startswith("median_pooling2d")


def test_swap_takes_no_name_that_the_model_has():
    number = int(Pooling2D("soft", 2).name.rpartition("_")[2].replace("pooling2d", "0"))
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation("relu", name=f"soft_pooling2d_{number + 1}")(inputs)
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Activation("relu", name=f"soft_pooling2d_{number + 2}")])
    model = keras.Model(inputs, layers.MaxPooling2D(2)(inner(x)))
    assert swap(model, "soft").layers[-1].name == f"soft_pooling2d_{number + 3}"


def test_swap_opens_wrappers():
    shared = layers.MaxPooling2D(2)
    each = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, padding="same"), layers.MaxPooling2D(2)])
    inputs = keras.Input((5, 8, 8, 3))
    x = layers.TimeDistributed(shared)(layers.TimeDistributed(each, name="mine")(inputs))
    model = keras.Model(inputs, x)
    copy, x = swap(model, "max"), np.random.default_rng(2).random((2, 5, 8, 8, 3), "float32")
    np.testing.assert_allclose(numbers(copy(x)), numbers(model(x)), rtol=1e-5, atol=1e-6)
    pools = [type(layer) for layer in copy._flatten_layers() if "Pooling" in type(layer).__name__]
    assert pools == [Pooling2D] * 2 and copy.get_layer("mine").layer.layers[0].name == each.layers[0].name
    assert type(model.layers[-1].layer) is layers.MaxPooling2D, "the model itself does not change"
    assert np.abs(numbers(swap(model, "min")(x)) - numbers(model(x))).max() > 1e-3


@keras.saving.register_keras_serializable("tests")
class OwnBlock(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = layers.MaxPooling2D(2, name="hidden")

    def call(self, x):
        return self.pool(x)


def test_swap_names_the_pools_that_it_leaves():
    inside = [keras.Input((8, 8, 3)), layers.MaxPooling2D(2), OwnBlock()]
    with pytest.warns(UserWarning, match="left as they are: hidden: inside a layer"):
        assert type(swap(keras.Sequential(inside), "soft").layers[0]) is Pooling2D
    with pytest.raises(ValueError, match="no pooling layer to replace: where='hidden'\n  left as they are: hidden"):
        swap(keras.Sequential(inside), "soft", where="hidden")
    if hasattr(layers, "AdaptiveAveragePooling2D"):
        adaptive = layers.AdaptiveAveragePooling2D(2, name="adaptive")
        with pytest.warns(UserWarning, match="left as they are: adaptive"):
            swap(keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(2), adaptive]), "soft")


def test_swap_says_what_to_do_with_a_model_of_a_class_of_its_own():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="swap copies Sequential and functional models, and Own is a class"):
        swap(Own(), "soft")


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


@pytest.mark.skipif(BACKEND != "torch", reason="JAX's exporter is not among our pins; tf2onnx has no expm1")
def test_a_model_leaves_by_onnx_with_its_numbers_for_batches_of_any_size(tmp_path):
    for module in ("onnxscript", "onnxruntime"):
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
