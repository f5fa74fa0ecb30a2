"""The page of a study: alone in its file, small, the same bytes, readable without scripts and on a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

pytest.importorskip("torch")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("statsmodels")

from poolkit.cli import main  # noqa: E402
from poolkit.lab import findings as numbers  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.report import plots  # noqa: E402
from poolkit.report.build import ReportError  # noqa: E402
from poolkit.report.study import build_study  # noqa: E402
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
    assert found["verdict"].split(",")[0].split(" by ")[0] in text[:6000]
    assert page.index("<svg", start) < page.index("<h2", page.index("<svg", start))


def test_the_page_needs_nothing_but_itself(page):
    elements = Elements(page).found
    for tag, attributes in elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value) or tag == "a", (tag, value)
    policy = [a["content"] for t, a in elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy[0]
    assert "@import" not in page and "url(http" not in page
    assert [a for t, a in elements if t == "script"] == [{"type": "application/json", "id": "findings"}]


def test_names_are_escaped(page):
    assert "<b>frog</b>" not in page.replace("\\u003cb>frog\\u003c/b>", "")
    assert "&lt;b&gt;frog&lt;/b&gt;" in page
    assert "the loss became <NaN>" not in page and "&lt;NaN&gt;" in page


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


def test_what_failed_and_what_warns_is_on_the_page(study, page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "lp:p=3" in text and "seed 2" in text.lower() or "2" in text
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


def test_four_hundred_runs_can_be_mailed(tmp_path):
    methods = ("max", "avg", "soft", "lp", "avg-topk", "lse", "median")
    folder = made(tmp_path, methods, seeds=50, pictures=40).folder
    assert build_study(folder).stat().st_size < 2_000_000


def test_the_command_tells_runs_from_studies(study, tmp_path, capsys):
    assert main(["report", str(study.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(study.folder / "report.html")}
    assert main(["report", str(study.folder), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert main(["report", str(tmp_path), "--verify"]) == 2
    assert "--verify is for studies" in capsys.readouterr().err
    with pytest.raises(ReportError, match="study.toml"):
        build_study(tmp_path)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")


def dump(page, *options):
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", *options,
        page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


@needs_chromium
def test_on_a_telephone_nothing_is_wider_than_the_screen(study, page, tmp_path):
    """The page's own script measures nothing, so a copy without the policy does."""
    copy = tmp_path / "copy.html"
    looser = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    # Headless Chromium's windows are not narrower than 500 pixels; a frame is.
    copy.write_text(looser, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe src="copy.html" width="360" height="800"></iframe><script>onload = () => {const d ='
        "document.querySelector('iframe').contentDocument.documentElement; document.body.id ="
        "'w' + d.scrollWidth}</script>",
        encoding="utf-8",
    )
    said = dump(frame, "--allow-file-access-from-files", "--dump-dom")
    width = re.search(r'<body id="w(\d+)"', said)
    assert width, said[:500]
    assert int(width.group(1)) <= 360
