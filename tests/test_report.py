"""The report: whole, honest, self-contained, and built from the folder alone."""

import base64
import io
import json
import re
import shlex
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from safetensors.torch import load_file, save_file

from poolkit.lab import nets
from poolkit.lab.pictures import to_png
from poolkit.lab.record import to_json
from poolkit.lab.run import Evaluation, prediction_arrays, weights_sha256
from poolkit.report import charts, examples, words
from poolkit.report.build import ReportError, build

CLASSES = ("airplane", "automobile", "bird", "cat")
HOSTILE = '<img src=x onerror="alert(1)"></style></svg><script>$\\1</script> & "quoted"'
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Noise(torch.nn.Module):
    """A random pooling: in training it adds noise to the average, in eval mode it is the average."""

    def forward(self, x):
        x = torch.nn.functional.avg_pool2d(x, 2)
        return x + torch.rand_like(x) if self.training else x


def poolings():
    return [("max", torch.nn.MaxPool2d(2)), ("avg", torch.nn.AvgPool2d(2)), ("noisy", Noise())]


def pictures(rng, number, shape):
    return rng.integers(0, 256, (number, *shape), dtype=np.uint8)


def result(probabilities, labels, classes):
    """The `final` entry, computed in plain NumPy."""
    answers, count = probabilities.argmax(1), len(classes)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, answers), 1)
    rows = []
    for place, name in enumerate(classes):
        hits = confusion[place, place]
        precision, recall = hits / max(confusion[:, place].sum(), 1), hits / max(confusion[place].sum(), 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-12)
        row = {"class": name, "precision": precision, "recall": recall, "f1": f1}
        rows.append({**row, "support": int(confusion[place].sum())})
    accuracy = float((answers == labels).mean())
    return {"loss": 0.9512, "accuracy": accuracy, "per_class": rows, "confusion": confusion.tolist()}


def history(number, learned=False):
    epochs = []
    for epoch in range(1, number + 1):
        row = {"epoch": epoch, "train_loss": 1.6 / epoch**0.5, "train_accuracy": 1 - 0.6 / epoch**0.5}
        row |= {"test_loss": 1.3 / epoch**0.4 + 0.02 * epoch, "test_accuracy": 0.75 - 0.3 / epoch}
        row |= {"seconds": 20.4, "images_per_second": 2451.0}
        epochs.append({**row, "learned": {"pool1.p": 3 - 0.1 * epoch, "pool2.p": 3 + 0.05 * epoch} if learned else {}})
    return epochs


def write_run(
    folder, *, classes=CLASSES, shape=(3, 32, 32), seed=0, learned=False, test=None, sample=None, epochs=10, pool="max"
):
    """A run folder as the trainer writes it, made up; `test` and `sample` are (pixels, labels)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = test or (pictures(rng, 200, shape), rng.integers(0, len(classes), 200))
    logits = rng.normal(size=(len(labels), len(classes))) * 1.5
    logits[np.arange(len(labels)), labels] += 2.2
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chances = chances.astype(np.float32)
    sample = sample or (pictures(rng, 25, shape), rng.integers(0, len(classes), 25))
    data = SimpleNamespace(eval_x=pixels, eval_y=labels, train_x=sample[0], train_y=sample[1])
    np.savez_compressed(folder / "predictions.npz", **prediction_arrays(Evaluation(0.9512, 0.5, chances), data))
    weights = nets.build("tutorial", pool, shape, len(classes), seed).state_dict()
    save_file(weights, folder / "model.safetensors")
    recipe = {"data": "cifar10", "net": "tutorial", "pool": pool, "epochs": epochs, "batch": 32}
    recipe |= {"optimiser": "adam", "lr": 0.001, "seed": 0, "limit": None}
    run = {
        "format": 1, "poolkit": "0.1.0", "status": "finished", "message": None, "recipe": recipe,
        "recipe_hash": "ab" * 32, "command": "poolkit train --pool max --epochs 10 --out runs/max",
        "started": "2026-01-02T03:04:05Z", "finished": "2026-01-02T03:07:29Z", "seconds": 204.3,
        "data": {
            "name": "cifar10", "source": "CIFAR-10, binary version, Krizhevsky 2009", "sha256": "cd" * 32,
            "caveat": None, "classes": list(classes), "shape": list(shape), "train": 50000,
            "test": len(labels),
        },
        "layers": [
            {"layer": "Conv2d 3×3, 32", "output": [32, 30, 30], "parameters": 896},
            {"layer": "Pool2d max 2×2", "output": [32, 15, 15], "parameters": 0},
            {"layer": "Conv2d 3×3, 64", "output": [64, 13, 13], "parameters": 18496},
            {"layer": "Pool2d max 2×2", "output": [64, 6, 6], "parameters": 0},
            {"layer": "Flatten", "output": [2304], "parameters": 0},
            {"layer": "Linear, 64", "output": [64], "parameters": 147520},
            {"layer": "Linear, 10", "output": [10], "parameters": 650},
        ],
        "parameters": 167562, "epochs": history(epochs, learned), "final": result(chances, labels, classes),
        "overfitting": "The training loss kept falling while the test loss rose 9 % from epoch 6 on.",
        "weights_sha256": weights_sha256(weights),
        "machine": {"platform": "Linux", "cores": 2, "threads": 2, "torch": "2.13.0", "poolkit": "0.1.0"},
    }  # fmt: skip
    save_json(folder, run)
    return run


def save_json(folder, run):
    (folder / "run.json").write_bytes(to_json(run))


def fail_run(folder, epochs=0):
    """Turn a run folder into that of a run which diverged."""
    run = json.loads((folder / "run.json").read_text())
    (folder / "predictions.npz").unlink()
    (folder / "model.safetensors").unlink()
    run |= {"status": "failed", "message": "The loss became NaN in epoch 1 at step 17.", "final": None}
    run |= {"overfitting": None, "weights_sha256": None, "epochs": run["epochs"][:epochs]}
    save_json(folder, run)
    return run


class Page(HTMLParser):
    """The page as a reader's program sees it; tags that do not balance fail at once."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.text, self.values = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "data":
            self.values.append(float(attrs["value"]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One ordinary run: its folder, its run.json, the page's text and the page parsed."""
    folder = tmp_path_factory.mktemp("runs") / "max"
    run = write_run(folder, learned=True)
    text = build(folder, poolings()).read_text(encoding="utf-8")
    return folder, run, text, Page(text)


def rebuilt(folder):
    return Page(build(folder, poolings()).read_text(encoding="utf-8"))


def test_the_page_is_small_and_alone_in_the_folder(made):
    folder, _, text, _ = made
    assert len(text.encode()) < 1_500_000
    names = {file.name for file in folder.iterdir()}
    assert names == {"run.json", "predictions.npz", "model.safetensors", "report.html"}


def test_the_page_asks_for_nothing_from_outside(made):
    _, _, text, page = made
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, name)
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_headings_descend_one_step_at_a_time(made):
    headings = made[3].headings
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(headings, headings[1:], strict=False))


def test_every_picture_is_described(made):
    page = made[3]
    assert len(page.all("img")) > 50
    assert all(image.get("alt", "").strip() for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"].strip() for svg in page.all("svg"))


def test_every_entry_of_the_contents_leads_somewhere_and_no_name_is_given_twice(made):
    page = made[3]
    names = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    targets = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert targets == names and len(set(names)) == len(names)


def test_every_number_of_the_result_is_in_the_page_exactly_and_rounded(made):
    _, run, _, page = made
    final = run["final"]
    exact = {final["loss"], final["accuracy"]}
    exact |= {row[key] for row in final["per_class"] for key in ("precision", "recall", "f1", "support")}
    assert exact <= set(page.values)
    assert f"{100 * final['accuracy']:.1f}\u202f% of the test pictures" in "".join(page.text)
    table = re.search(r'<table class="confusion">.*?</table>', made[2], re.S)[0]
    cells = [int(cell) for cell in re.findall(r"<td[^>]*>(\d+)</td>", table)]
    assert cells == [times for row in final["confusion"] for times in row]


def test_the_record_holds_recipe_command_machine_and_hashes(made):
    _, run, _, page = made
    record = [run["command"], run["recipe_hash"], run["data"]["sha256"], run["weights_sha256"], "167,562"]
    for expected in [*record, run["started"], run["overfitting"], run["machine"]["torch"]]:
        assert expected in page.words


def test_the_files_inside_the_page_are_the_run_and_its_epochs(made):
    folder, run, _, page = made
    links = {a["download"]: base64.b64decode(a["href"].split(",")[1]) for a in page.all("a") if "download" in a}
    assert links["run.json"] == (folder / "run.json").read_bytes()
    lines = links["epochs.csv"].decode().splitlines()
    assert lines[0].endswith("images_per_second,pool1.p,pool2.p") and len(lines) == 1 + len(run["epochs"])
    assert float(lines[-1].split(",")[4]) == run["epochs"][-1]["test_accuracy"]


def test_same_folder_gives_same_bytes(made, tmp_path):
    write_run(tmp_path / "again", learned=True)
    assert build(tmp_path / "again", poolings()).read_text(encoding="utf-8") == made[2]


def test_random_methods_say_so_and_the_caller_keeps_its_random_state(made, tmp_path):
    page = made[3]
    assert "shown in eval mode" in page.words
    assert re.findall(r"<b>(\w+)</b><sup>r</sup>", made[2]) == ["noisy"] * 3
    write_run(tmp_path)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    build(tmp_path, poolings())
    assert torch.equal(torch.rand(3), wanted)


def test_differences_to_the_runs_own_pooling_are_those_of_the_maps(made):
    folder, _, text, _ = made
    x = torch.from_numpy(np.load(folder / "predictions.npz")["shown_pixels"][0]).float()[None] / 255
    weights = load_file(folder / "model.safetensors")
    maps = torch.relu(torch.nn.functional.conv2d(x, weights["conv1.weight"], weights["conv1.bias"]))[0]
    channel = int(maps.mean((1, 2)).argmax())
    windows = maps[channel].reshape(15, 2, 15, 2).permute(0, 2, 1, 3).flatten(2)
    gap = float((windows.mean(2) - windows.amax(2)).abs().mean())
    shown = re.search(rf'in channel {channel}\.">.*?differs by <data value="([^"]+)"', text, re.S)
    assert float(shown[1]) == pytest.approx(gap, rel=1e-5)


def test_a_method_that_fails_is_named_and_the_others_are_shown(tmp_path):
    write_run(tmp_path)

    def broken(x):
        raise ValueError("needs an even number of channels")

    page = Page(build(tmp_path, [*poolings(), ("broken", broken)]).read_text(encoding="utf-8"))
    assert "broken could not be shown. needs an even number of channels" in page.words
    assert "Channel" in page.words


def test_a_method_with_another_output_size_is_shown_without_a_difference(tmp_path):
    write_run(tmp_path)
    page = Page(build(tmp_path, [*poolings(), ("third", torch.nn.MaxPool2d(3))]).read_text(encoding="utf-8"))
    assert "another size: 10\u202f×\u202f10" in "".join(page.text)


def test_hostile_strings_are_shown_as_text(tmp_path):
    write_run(tmp_path, classes=(HOSTILE, "bird", "cat", "dog"))
    run = json.loads((tmp_path / "run.json").read_text())
    run |= {"command": HOSTILE, "message": HOSTILE, "overfitting": HOSTILE}
    run["data"] |= {"name": HOSTILE, "caveat": HOSTILE, "source": HOSTILE}
    run["recipe"]["data"] = HOSTILE
    run["final"]["per_class"][0]["class"] = HOSTILE
    run["layers"][0]["layer"] = HOSTILE
    run["machine"]["platform"] = HOSTILE
    for epoch in run["epochs"]:
        epoch["learned"] = {HOSTILE: 1.5}
    save_json(tmp_path, run)
    hostile = [(HOSTILE, torch.nn.MaxPool2d(2)), (HOSTILE + "2", torch.nn.AvgPool2d(2))]
    page = Page(build(tmp_path, hostile).read_text(encoding="utf-8"))
    assert not {"script", "iframe"} & {tag for tag, _ in page.tags}
    assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
    assert page.words.count(HOSTILE) > 15


def test_a_caveat_stands_before_the_headline(tmp_path):
    run = write_run(tmp_path)
    run["data"]["caveat"] = "test_batch.bin differs from the official file."
    save_json(tmp_path, run)
    page = rebuilt(tmp_path)
    assert page.words.index("test_batch.bin differs") < page.words.index("are named correctly")


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_failed_run_gets_an_honest_report(tmp_path, epochs):
    write_run(tmp_path)
    run = fail_run(tmp_path, epochs)
    page = rebuilt(tmp_path)
    assert "This run did not reach a result" in page.words and run["message"] in page.words
    assert "are named correctly" not in page.words
    assert ("No epoch was finished" in page.words) == (epochs == 0)


def test_values_that_are_not_finite_are_called_so(tmp_path):
    write_run(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    run["epochs"][3]["train_loss"] = run["epochs"][-1]["test_loss"] = None
    save_json(tmp_path, run)
    assert rebuilt(tmp_path).words.count("not finite") >= 2


def test_grey_pictures_of_another_size(tmp_path):
    write_run(tmp_path, shape=(1, 28, 28), classes=tuple("0123456789"))
    page = rebuilt(tmp_path)
    assert "28×28 pixels, 1 channel," in page.words
    assert len([image for image in page.all("img") if "training picture" in image["alt"]]) == 25


def test_large_pictures_are_shrunk_and_the_page_stays_small(tmp_path):
    write_run(tmp_path, shape=(3, 160, 160), epochs=1)
    text = build(tmp_path).read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    assert Page(text).words.count("hrunk for display to 96 pixels") == 3
    widths = [
        int.from_bytes(base64.b64decode(png)[16:20], "big") for png in re.findall(r"image/png;base64,([^\"]+)", text)
    ]
    assert max(widths) == 96


def test_small_pictures_are_shown_whole(made):
    assert "hrunk for display" not in made[3].words
    pixels = np.arange(3 * 96 * 40, dtype=np.uint32).astype(np.uint8).reshape(3, 96, 40)
    assert charts.picture(pixels) == charts.uri(to_png(pixels), "image/png")


def test_a_shrunk_picture_has_the_means_of_what_it_stands_for():
    rng = np.random.default_rng(0)
    values = rng.random((192, 384), dtype=np.float32)
    wanted = values.reshape(48, 4, 96, 4).mean((1, 3))
    np.testing.assert_allclose(charts._shrunk(values), wanted, atol=1e-5)


def test_a_palette_gives_the_colours_of_the_scale():
    values = np.linspace(-0.5, 1.5, 1600).reshape(40, 40)
    png = base64.b64decode(charts.activation(values, 1.0).split(",")[1])
    wanted = colormaps[charts.ACTIVATION](values, bytes=True)[..., :3].astype(int)
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert np.abs(shown - wanted).max() <= 4  # a neighbouring colour where float32 rounds over a step


def test_captions_say_how_the_shown_predictions_were_chosen(made):
    words_of_page = made[3].words
    assert "The first 12 test pictures named correctly, in the order of the test set" in words_of_page
    assert "The 12 mistakes with the largest probability, the largest first" in words_of_page
    chances = re.findall(r'<div class="card wrong">.*?<data value="([^"]+)"', made[2], re.S)
    assert len(chances) == 12 and sorted(map(float, chances), reverse=True) == list(map(float, chances))


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("poolkit train --data digits --out runs/a", "poolkit train --data digits --out runs/a-again"),
        ("poolkit train --out=a/ --seed 1 --resume", "poolkit train --seed 1 --out a-again"),
        ("poolkit train --out 'my run' --pool max", "poolkit train --pool max --out 'my run-again'"),
        ("poolkit demo", "poolkit demo --out runs/again"),
        (HOSTILE, HOSTILE),
        ("poolkit train 'open", "poolkit train 'open"),
    ],
)
def test_the_command_to_make_it_again_writes_into_another_folder(command, printed):
    assert words.again(command) == printed


def test_the_page_prints_a_command_that_does_not_meet_its_own_folder(made):
    printed = re.search(r"<pre[^>]*><code>(.*?)</code>", made[2])[1]
    asked, again = shlex.split(made[1]["command"]), shlex.split(printed)
    assert asked[:-1] == again[:-1] and asked[-1] != again[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1234, "0.123"), (12.34, "12.3"), (0.00123, "0.00123"), (0.00012, "1.20·10⁻⁴"), (-4.56e-9, "−4.56·10⁻⁹"),
        (0.0, "0"), (1234.5, "1,234"), (2e7, "2.00·10⁷"), (None, "not finite"),
    ],
)  # fmt: skip
def test_significant_figures_never_round_to_nothing(value, text):
    assert re.sub("<.*?>", "", words.significant(value)) == text


def test_maps_that_differ_a_little_are_not_called_equal(tmp_path):
    write_run(tmp_path)
    near = ("near", lambda x: torch.nn.functional.max_pool2d(x, 2) + 1e-6)
    text = build(tmp_path, [*poolings(), near, ("same", torch.nn.MaxPool2d(2))]).read_text(encoding="utf-8")
    assert not re.search(r"differs by <data[^>]*>[0.]+</data>", text)
    assert "·10⁻" in text and text.count("no difference") == 3


def test_long_spellings_break_behind_their_marks_only(tmp_path):
    write_run(tmp_path, pool="gem:p=learn@3")
    text = build(tmp_path).read_text(encoding="utf-8")
    assert "<b>gem:<wbr>p=<wbr>learn<wbr>@3</b>" in text
    assert "gem:p=learn@3" in Page(text).words
    assert words.breakable("<a:b>") == "&lt;a:<wbr>b&gt;"


def test_one_epoch_and_a_hundred_classes(tmp_path):
    write_run(tmp_path, classes=tuple(f"class {i}" for i in range(100)), epochs=1)
    assert len(build(tmp_path, poolings()).read_bytes()) < 1_500_000
    assert "After 1 epoch of training" in rebuilt(tmp_path).words


def exchange_weights(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "conv1.bias": weights["conv1.bias"] + 1}, folder / "model.safetensors")


def hostile_pool(folder):
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["recipe"]["pool"] = HOSTILE
    return to_json(run)


def test_a_page_that_cannot_be_rendered_is_a_report_error(tmp_path, monkeypatch):
    write_run(tmp_path)
    monkeypatch.setattr(examples, "all_examples", lambda: {})
    monkeypatch.setattr("poolkit.report.build._examples", lambda: {"drawing": ""})
    with pytest.raises(ReportError, match="no page can be made"):
        build(tmp_path, poolings())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "run.json").unlink(), "There is no run.json"),
        (lambda folder: (folder / "run.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "run.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: (folder / "run.json").write_text('{"format": 2}'), "reads format 1"),
        (lambda folder: (folder / "run.json").write_text('{"format": 1}'), "missing or unknown keys"),
        (lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x80"), "is damaged"),
        (lambda folder: (folder / "predictions.npz").write_bytes(b"PK\x03\x04 nonsense"), "npz is damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"), "safetensors is damaged"),
        (lambda folder: np.savez(folder / "predictions.npz", labels=np.array([{}])), "npz is damaged"),
        (lambda folder: exchange_weights(folder), "not those that run.json names"),
        (lambda folder: (folder / "run.json").write_bytes(hostile_pool(folder)), "recipe: "),
    ],
)
def test_a_damaged_folder_is_refused_and_the_old_report_stays(tmp_path, spoil, says):
    write_run(tmp_path)
    (tmp_path / "report.html").write_text("old")
    spoil(tmp_path)
    with pytest.raises(ReportError, match=says):
        build(tmp_path, poolings())
    assert (tmp_path / "report.html").read_text() == "old"


def test_worked_pooling_is_what_plain_loops_give():
    shown = examples.pooled()
    for r in range(2):
        for c in range(2):
            window = [shown.cells[2 * r + i][2 * c + j] for i in range(2) for j in range(2)]
            assert shown.largest[r][c] == max(window)
            assert shown.average[r][c] == sum(window) / 4


def test_worked_volume_is_ten_maps_of_a_quarter_of_the_numbers(made):
    shown = examples.volume()
    assert (shown.before, shown.after) == ((10, 16, 16), (10, 8, 8))
    assert (shown.numbers_before, shown.numbers_after) == (2560, 640)
    assert "1,920 fewer, 75\u202f%" in "".join(made[3].text).replace("\n   ", "")


def test_worked_filter_is_what_plain_loops_give(made):
    shown = examples.filtered()
    wanted = [
        [sum(shown.picture[r + i][c + j] * shown.weights[i][j] for i in range(3) for j in range(3)) for c in range(3)]
        for r in range(3)
    ]
    assert [list(row) for row in shown.result] == wanted
    r, c = shown.place
    assert [p for p, _ in shown.terms] == [shown.picture[r + i][c + j] for i in range(3) for j in range(3)]
    assert sum(p * w for p, w in shown.terms) == shown.result[r][c]
    places = [svg["aria-label"] for tag, svg in made[3].tags if svg.get("class") == "mini"]
    assert [label.split("gives ")[1].rstrip(".") for label in places] == [
        examples.tell(value) for row in wanted for value in row
    ]


def test_labels_of_curves_that_end_together_do_not_overlap():
    svg = charts.curves([charts.Line("a", (1.0, 0.5)), charts.Line("b", (2.0, 0.5))], "loss", "alt")
    heights = [float(y) for y in re.findall(r'(?s)<text[^>]*? y="([-0-9.]+)"[^>]*>[ab] 0\.5<', svg)]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) > 10


def test_curves_follow_the_colours_of_the_page():
    svg = charts.curves([charts.Line("a", (1.0, None, 0.5))], "loss", "the loss")
    assert "#0101" not in svg and "currentColor" in svg and "var(--blue)" in svg


def test_wilson_interval_is_the_published_one():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263.
    assert words.interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert words.interval(0.0, 10)[0] == 0 and words.interval(1.0, 10)[1] == pytest.approx(1)


def test_commonest_mistakes_come_first_and_right_answers_never():
    found = words.confusions(["a", "b"], [[5, 3], [9, 1]])
    assert [(m["true"], m["predicted"], m["times"]) for m in found] == [("b", "a", 9), ("a", "b", 3)]
    assert found[0]["share"] == 0.9


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.44, "8.4 s"), (59.6, "1 min 0 s"), (204.3, "3 min 24 s"), (4330, "1 h 12 min")]
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text
