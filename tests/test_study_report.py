"""The page of a study: alone in its file, small, the same bytes, readable without scripts and on a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from conftest import PATIENCE

pytest.importorskip("torch")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("statsmodels")

from PIL import Image  # noqa: E402

from poolkit.cli import main  # noqa: E402
from poolkit.lab import findings as numbers  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.report import plots  # noqa: E402
from poolkit.report.build import ReportError, style  # noqa: E402
from poolkit.report.study import build_study, render  # noqa: E402
from studies import made  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    methods = {"max": 0.7, "avg": 0.4, "soft:beta=learn": 0.72, "lp:p=3": 0.7}
    return made(tmp_path_factory.mktemp("study"), methods, seeds=4, failed=[("lp:p=3", 2)])


@pytest.fixture(scope="module")
def page(study):
    return build_study(study.folder).read_text(encoding="utf-8")


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.drawings, self.headings, self.depth = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "svg":  # what lies inside another is a part of that one
            self.drawings += [dict(attrs)] if self.depth == 0 else []
            self.depth += 1
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        self.depth -= tag == "svg"


def test_the_page_says_first_what_follows(study, page):
    found = numbers.findings(study)
    start = page.index("<main") if "<main" in page else page.index("<body")
    text = re.sub(r"<[^>]+>", "", page[start:])
    assert found["verdict"].replace(" %", "\u00a0%") in text[:6000]
    ranking = page[page.index('<ol class="rows"') : page.index("</ol>")]
    rows = ranking.split("<li ")[1:]
    assert len(rows) == len(found["order"]) and page.index("<h2") > page.index("</ol>")
    for label, row in zip(found["order"], rows, strict=True):
        seeds = re.findall(r'<circle class="seed"[^>]*><title>seed (\d+): ([\d.]+) %', row)
        runs = [run for run in found["runs"] if run["label"] == label and run["accuracy"] is not None]
        assert sorted((int(n), value) for n, value in seeds) == [(r["seed"], f"{r['accuracy']:.2f}") for r in runs]
        assert row.count('class="reach"') == row.count('class="mark"') == 1


def test_the_page_needs_nothing_but_itself(page):
    elements = Elements(page).found
    for tag, attributes in elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value) or tag == "a", (tag, value)
    policy = [a["content"] for t, a in elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy[0]
    assert "@import" not in page and "url(http" not in page
    # No script runs, so there is nothing that a browser without scripts would not show.
    assert [a for t, a in elements if t == "script"] == [{"type": "application/json", "id": "findings"}]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


def test_names_are_escaped(page):
    assert "<b>frog</b>" not in page.replace("\\u003cb>frog\\u003c/b>", "")
    assert "&lt;b&gt;frog&lt;/b&gt;" in page
    assert "the loss became <NaN>" not in page and "&lt;NaN&gt;" in page


def test_labels_caveats_and_reasons_are_escaped(study):
    evil = "</script><script>alert(1)</script>"
    text = numbers.canonical(numbers.findings(study)).decode()
    found = json.loads(text.replace("lp:p=3", evil).replace("These pictures were never taken.", evil))
    elements = Elements(render(study, found)).found
    assert [a for t, a in elements if t == "script"] == [{"type": "application/json", "id": "findings"}]
    assert not [t for t, _ in elements if t in ("frog", "nan")]


def test_the_findings_are_inside_and_the_same(study, page):
    inside = re.search(r'<script type="application/json" id="findings">(.*?)</script>', page, re.DOTALL).group(1)
    assert numbers.canonical(json.loads(inside)) == (study.folder / numbers.FINDINGS).read_bytes()
    assert numbers.verify(study) == []


def test_the_same_study_gives_the_same_page(study, page):
    assert build_study(study.folder).read_text(encoding="utf-8") == page


def test_every_picture_has_words_and_headings_are_in_order(page):
    parsed = Elements(re.sub(r'<p class="legend" aria-hidden="true">.*?</p>', "", page, flags=re.DOTALL))
    assert all(a.get("alt") is not None for t, a in parsed.found if t == "img")
    assert parsed.drawings and all(a.get("role") == "img" and a.get("aria-label") for a in parsed.drawings)
    assert parsed.headings.count(1) == 1 and parsed.headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert ("html", {"lang": "en"}) in [(t, {"lang": a.get("lang")}) for t, a in parsed.found]


def table(page, caption):
    """The cells of the table that says so, row by row, without its head."""
    body = re.search(rf"<caption>{caption}</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL).group(1)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in rows if row]


def test_what_each_chart_shows_is_in_a_table_too(study, page):
    found = numbers.findings(study)
    others = [row["label"] for row in found["methods"] if row["difference"]]
    assert sorted(row[0] for row in table(page, "Differences to the baseline")) == sorted(others)
    for caption in ("Mean test accuracy after each epoch", "Time, memory and probabilities", "Robustness"):
        assert [row[0] for row in table(page, caption)] == found["order"], caption
    runs = [
        [r["label"], str(r["seed"]), "–" if r["accuracy"] is None else f"{r['accuracy']:.2f}"] for r in found["runs"]
    ]
    assert [row[:3] for row in table(page, "All runs")] == runs
    assert table(page, "Mean of each learned parameter after each epoch") == [
        ["soft:beta=learn@1", "pool1.beta", "1.100", "1.200"]
    ]


def test_numbers_of_the_maps_do_not_depend_on_a_processors_last_bits(page):
    gaps = re.findall(r'differs by <data value="([^"]+)">', page)
    assert gaps and all(float(gap) == float(f"{float(gap):.4g}") for gap in gaps)


def test_a_tuned_study_shows_what_was_tuned_and_used(tmp_path, page):
    asked = {"tune": 3, "tune_data_sha256": "7" * 64, "probes": None}
    study = made(tmp_path, ("max", "soft", "spoc"), seeds=2, pictures=60, **asked)
    text = build_study(tmp_path).read_text(encoding="utf-8")
    found = numbers.findings(study)
    used = {label: (r.pool if label != "spoc" else r.head, f"{r.lr:g}") for label, r in study.recipes().items()}
    shown = {row[0]: row for row in table(text, "The recipes that tuning chose")}
    assert {label: (row[1], row[2]) for label, row in shown.items()} == used and used["spoc"][0] == "spoc"
    for one in found["tuning"]["rows"]:
        cells = shown[one["label"]]
        best = [f"{one['best_of'][place]:.1f}" for place in (0, 1, 2)]
        assert cells[3] == str(one["chosen"] + 1) and cells[5:8] == best
        assert cells[8:] == ["3", "0", f"{one['seconds']:.0f}"]
    space = dict(table(text, "The space of the trials"))
    assert space["soft"].startswith("rate from ") and "; beta from " in space["soft"]
    assert space["max"].count("from") == 1
    assert len(table(text, "All trials")) == 4 * 3
    assert 'href="#tuning"' in text and text.count("tuned anew, with other trials") == 2
    assert "tuned anew" not in page and 'id="tuning"' not in page


def test_a_tuned_method_is_drawn_with_the_parameters_that_were_used(tmp_path, monkeypatch):
    asked = {"tune": 4, "tune_data_sha256": "7" * 64, "probes": None}
    study = made(tmp_path, ("max", "soft"), seeds=2, pictures=60, **asked)
    drawn = []
    monkeypatch.setattr("poolkit.report.study.Pool2d", lambda spelling, *_, **__: drawn.append(spelling) or abs)
    build_study(tmp_path)
    assert drawn == ["max", study.recipes()["soft"].pool] and drawn[1] != "soft"


def test_times_are_those_that_the_ratio_is_of(study):
    """In the table and in the plot: the median on one kind of machine, not the mean over all."""
    found = json.loads(numbers.canonical(numbers.findings(study)))
    row = next(row for row in found["methods"] if row["label"] == "avg")
    assert row["train_time"]["runs"] == 4
    row["train_seconds"]["mean"], row["train_time"] = 999.0, {"seconds": 13.25, "runs": 2}
    row |= {"train_time_ratio": 1.041, "train_time_ratio_low": 0.97, "train_time_ratio_high": 3.1}
    text = render(study, found)
    cells = next(cells for cells in table(text, "Time, memory and probabilities") if cells[0] == "avg")
    assert cells[1:4] == ["13.2", "2", "1.04 (0.97–3.10)"]
    assert "In brackets, the smallest and the largest ratio over the seeds" in text
    shown = re.search(r"<title>(avg: [^<]*)</title>", text[text.index('id="cost"') :]).group(1)
    assert "13" in shown and "999" not in text[text.index('id="cost"') : text.index('id="classes"')]
    del row["train_time_ratio_low"], row["train_time_ratio_high"]  # as older findings are
    cells = next(cells for cells in table(render(study, found), "Time, memory and probabilities") if cells[0] == "avg")
    assert cells[3] == "1.04"
    row["train_time"] = {"seconds": None, "runs": 0}
    without = render(study, found)
    assert not re.search(r"<title>avg: [^<]*</title>", without[without.index('id="cost"') :])


def test_what_failed_and_what_warns_is_on_the_page(study, page):
    assert table(page, "Failed runs") == [["lp:p=3", "2", "RuntimeError: the loss became &lt;NaN&gt;"]]
    assert study.sha256 in page and "These pictures were never taken." in page


def test_an_alarm_stands_before_the_plot_and_is_spelled_out_after_it(study, page):
    alarms = numbers.findings(study)["alarms"]
    assert alarms
    assert page.index('href="#alarms"') < page.index('class="strip"') < page.index('id="alarms"')
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert all(alarm in text for alarm in alarms)


def test_runs_of_one_epoch_have_no_curve_and_dots_for_what_they_learned(tmp_path):
    recipe = Recipe(data="made", epochs=1)
    folder = made(tmp_path, ("max", "soft:beta=learn"), seeds=3, recipe=recipe).folder
    text = build_study(folder).read_text(encoding="utf-8")
    assert "one epoch, so there is no curve" in text
    panels = re.findall(r'<svg class="panel".*?</svg></svg>', text)
    assert len(panels) == 1 and panels[0].count('<circle class="faint"') == 3 and "<path" not in panels[0]


def test_names_in_the_scatter_plot_do_not_overlap():
    apart = [plots.Point(x, y, "", "off", "method") for x, y in ((1.0, 1.0), (9.0, 9.0))]
    crowd = [plots.Point(5 + 0.01 * i, 5.0, "", "off", f"method {i}") for i in range(9)]
    scale = plots.Scale(0, 10)
    shown = re.findall(r'<text class="name off"[^>]*>([^<]+)', plots.scatter(scale, scale, [*apart, *crowd], [], "alt"))
    assert shown.count("method") == 2 and 1 <= len(shown) - 2 <= 4
    first = [plots.Point(5.0, 5.0, "", "on", "front"), *crowd]
    assert ">front<" in plots.scatter(scale, scale, first, [], "alt")


def test_a_name_without_room_on_a_telephone_is_left_out_there_alone():
    scale, long = plots.Scale(0, 10), "m" * 41  # wider than a telephone's plot

    def drawn(x, name):
        return plots.scatter(scale, scale, [plots.Point(x, 5.0, "", "on", name)], [], "alt")

    assert f'class="name on roomy" x="50.00%" y="50.00%" dx="9" dy="4" text-anchor="start">{long}<' in drawn(5.0, long)
    assert 'class="name on" x="50.00%"' in drawn(5.0, "short")
    # A place that has room on both comes before one to the right, which has it on a desk alone.
    assert 'class="name on" x="70.00%" y="50.00%" dx="-9"' in drawn(7.0, "m" * 12)
    assert "<text" not in re.sub(r'<text class="tick".*?</text>', "", drawn(5.0, "m" * 90))


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [(0, 10, ["0", "5", "10"]), (-0.3, 0.3, ["−0.2", "0.0", "0.2"]), (71.2, 72.3, ["71.5", "72.0"])],
)
def test_ticks_are_round_and_inside(low, high, texts):
    ticks = plots.Scale(low, high).ticks(3)
    assert [text for _, text in ticks] == texts
    assert all(0 <= place <= 100 for place, _ in ticks)


def test_an_unfinished_study_gets_a_page_that_says_so(tmp_path):
    text = build_study(made(tmp_path, seeds=2, missing=[("soft", 1)]).folder).read_text(encoding="utf-8")
    assert "not complete: 1 of 8 runs are missing" in text


def test_a_study_of_which_every_run_failed_gets_a_page(tmp_path):
    everything = [(label, seed) for label in ("max", "avg", "soft") for seed in (0, 1)] + [
        ("max (again)", s) for s in (2, 3)
    ]
    text = build_study(made(tmp_path, seeds=2, failed=everything).folder).read_text(encoding="utf-8")
    assert "Nothing is decided" in text
    ranking = text[text.index('id="ranking"') : text.index("</figure>")]
    assert 'class="axis"' not in ranking  # nothing was measured, so there is no scale to invent


def test_four_hundred_runs_can_be_mailed(tmp_path):
    methods = ("max", "avg", "soft", "lp", "avg-topk", "lse", "median")
    folder = made(tmp_path, methods, seeds=50, pictures=40).folder
    assert build_study(folder).stat().st_size < 2_000_000


def refused(folder, capsys):
    """What `poolkit report` says of a folder that is neither."""
    assert main(["report", str(folder)]) == 1
    return capsys.readouterr().err


def test_numbers_that_are_not_those_of_the_runs_are_found_and_left_as_they_are(study, page, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(study.folder, folder)
    stored = folder / numbers.FINDINGS
    stored.write_bytes(stored.read_bytes().replace(b'"accuracy":', b'"accuracy": ', 1))
    assert main(["report", str(folder), "--verify"]) == 1
    assert numbers.FINDINGS in capsys.readouterr().out
    found = json.loads(stored.read_bytes())
    found["methods"][1]["accuracy"]["mean"] += 1
    stored.write_bytes(numbers.canonical(found))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert main(["report", str(folder), "--verify", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    mean = found["methods"][1]["accuracy"]["mean"]
    assert said["same"] is False
    assert said["differences"] == [f"findings.json: methods[1].accuracy.mean is {mean}, recomputed {mean - 1}"]
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_published_study_without_its_runs_is_left_as_it_is(study, page, tmp_path, capsys):
    shutil.copytree(study.folder, tmp_path / "published", ignore=shutil.ignore_patterns("runs"))
    folder = tmp_path / "published"
    before = contents(folder)
    assert "the raw predictions are not here, so nothing can be computed again" in refused(folder, capsys)
    assert main(["report", str(folder), "--verify"]) == 1
    assert "the raw predictions are not here, so nothing can be computed again" in capsys.readouterr().err
    assert contents(folder) == before
    # The page tells the reader of such a folder so.
    assert "With the runs’ folder" in page and "Compute every number anew from the predictions:" not in page


def test_findings_of_more_runs_than_are_there_are_left_as_they_are(study, page, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(study.folder, folder)
    before = contents(folder)
    shutil.rmtree(next((folder / "runs").iterdir()))
    said = refused(folder, capsys)
    assert "tells of 20 runs, and 19 are in runs" in said and "delete findings.json first" in said
    assert main(["report", str(folder), "--verify"]) == 1
    assert "19 are in runs" in capsys.readouterr().err
    assert contents(folder) == before
    (folder / numbers.FINDINGS).unlink()
    assert main(["report", str(folder)]) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("an order of means decides", "the order of means decides", "shows something else: from line "),
        ('src="data:image/png;base64,iV', 'src="data:image/png;base64,jV', "shows other pictures"),
        ('\n"poolkit":"', '\n"poolkit":"0.0.', "report.html was written by poolkit 0.0."),
        ('"delta":0.2', '"delta":0.3', "request.delta is 0.3, recomputed 0.2"),
        ('id="findings"', 'id="findings "', "holds no findings"),
    ],
)
def test_a_page_that_shows_something_else_is_found(study, page, tmp_path, capsys, old, new, said):
    folder = tmp_path / "copy"
    shutil.copytree(study.folder, folder)
    changed = page.replace(old, new, 1)
    assert changed != page
    (folder / "report.html").write_bytes(changed.encode())
    assert main(["report", str(folder), "--verify"]) == 1
    assert said in capsys.readouterr().out


def test_what_verify_compared_is_said(study, page, tmp_path, capsys):
    folder = tmp_path / "another name"
    shutil.copytree(study.folder, folder)
    assert main(["report", str(folder), "--verify"]) == 0
    assert "(findings.csv, findings.json, runs.csv, report.html)" in capsys.readouterr().out
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--verify"]) == 0
    said = capsys.readouterr()
    assert "(findings.csv, findings.json, runs.csv)" in said.out and "report.html is not there" in said.err


def test_the_command_tells_runs_from_studies(study, tmp_path, capsys):
    assert main(["report", str(study.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(study.folder / "report.html")}
    assert main(["report", str(study.folder), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert "run.json" in refused(tmp_path, capsys)
    assert main(["report", str(tmp_path), "--verify"]) == 2
    assert "--verify is for studies" in capsys.readouterr().err
    with pytest.raises(ReportError, match="study.toml"):
        build_study(tmp_path)


def light(colour):
    """Relative luminance (WCAG 2.2) of red, green and blue from 0 to 255."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    darker, brighter = sorted((light(one), light(other)))
    return (brighter + 0.05) / (darker + 0.05)


def over(colour, ground, opacity):
    return [opacity * c + (1 - opacity) * g for c, g in zip(colour, ground, strict=True)]


def palettes():
    for block in re.findall(r":root \{(.*?)\}", style("page.css"), re.DOTALL):
        hexes = {n: [int(h[i : i + 2], 16) for i in (0, 2, 4)] for n, h in re.findall(r"--(\w+): #(\w{6})", block)}
        shades = [list(map(int, rgb.split())) for rgb in re.findall(r"--\w+-rgb: ([\d ]+)", block)]
        yield hexes, shades, float(re.search(r"--cap: ([\d.]+)", block).group(1))


def test_colours_can_be_told_from_what_they_stand_on():
    """4.5 for text, also on the darkest shade of a table; 3 for the dots of seeds."""
    opacity = float(re.search(r"\.seed \{[^}]*fill-opacity: ([\d.]+)", style("study.css")).group(1))
    found = list(palettes())
    assert len(found) == 2
    for colours, shades, cap in found:
        for ground in (colours["page"], colours["tint"]):
            for name in ("ink", "soft", "blue", "orange", "green"):
                assert contrast(colours[name], ground) >= 4.5, name
        for name in ("soft", "blue", "orange", "green"):
            assert contrast(over(colours[name], colours["page"], opacity), colours["page"]) >= 3, name
        assert len(shades) == 2
        assert all(contrast(colours["ink"], over(shade, colours["page"], cap)) >= 4.5 for shade in shades)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")


def dump(page, *options):
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", *options,
        page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout


def seen(page, to, *options):
    """A picture of the top of a page, grey, (1000, 900)."""
    options = ("--window-size=900,1000", "--disable-features=IsolateSandboxedIframes", *options)
    for _ in range(3):  # on a busy machine it is sometimes taken before the frame is drawn
        dump(page, f"--screenshot={to}", *options)
        shown = np.asarray(Image.open(to).convert("L")).astype(float)
        if shown.std() > 0:
            break
    return shown


@needs_chromium
def test_without_scripts_the_page_looks_the_same(page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown = {}
    for allowed in ("", "allow-scripts"):
        frame = tmp_path / f"frame{allowed}.html"
        frame.write_text(
            f'<body style="margin:0"><iframe sandbox="{allowed}" src="page.html" width="900" height="990" '
            'style="border:0"></iframe>',
            encoding="utf-8",
        )
        shown[allowed] = seen(frame, tmp_path / f"shot{allowed}.png")
    assert np.array_equal(shown[""], shown["allow-scripts"]) and shown[""].std() > 10  # and not an empty page


@needs_chromium
def test_in_the_dark_the_page_is_dark(page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    light_one = seen(tmp_path / "page.html", tmp_path / "light.png")
    dark_one = seen(tmp_path / "page.html", tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert np.median(light_one) > 240 and np.median(dark_one) < 40
    assert (dark_one > 180).mean() > 0.005  # what is written is bright


@needs_chromium
def test_the_page_can_be_printed_without_what_is_folded_being_lost(page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    folded = page.replace("details:not(.long)::details-content", "details.never::details-content")
    (tmp_path / "folded.html").write_text(folded, encoding="utf-8")
    sizes = []
    for name in ("page", "folded"):
        dump(tmp_path / f"{name}.html", f"--print-to-pdf={tmp_path / name}.pdf", "--no-pdf-header-footer")
        printed = (tmp_path / f"{name}.pdf").read_bytes()
        assert printed.startswith(b"%PDF-")
        sizes.append(len(re.findall(rb"/Type /Page\b", printed)))
    assert 3 <= sizes[1] < sizes[0] <= 30


@needs_chromium
def test_on_a_telephone_nothing_is_wider_than_the_screen(page, tmp_path):
    """The page has no script to measure itself with: the page around its frame does, of a copy without the policy."""
    copy = tmp_path / "copy.html"
    looser = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    # Headless Chromium's windows are not narrower than 500 pixels; a frame is.
    copy.write_text(looser, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe src="copy.html" width="360" height="800"></iframe><script>onload = () => {'
        "const d = document.querySelector('iframe').contentDocument;"
        "const out = [...d.querySelectorAll('svg text, .ticks span, figcaption, .lead, summary')].filter(e => {"
        "const b = e.getBoundingClientRect(); return b.left < 0 || b.right > 360});"
        "document.body.id = 'w' + d.documentElement.scrollWidth + '-' + d.querySelectorAll('svg text').length;"
        "document.body.title = out.map(e => e.textContent).join('|')}</script>",
        encoding="utf-8",
    )
    said = dump(frame, "--allow-file-access-from-files", "--dump-dom")
    found = re.search(r'<body id="w(\d+)-(\d+)" title="([^"]*)"', said)
    assert found, said[:500]
    assert int(found.group(1)) <= 360 and int(found.group(2)) > 10
    assert found.group(3) == ""
