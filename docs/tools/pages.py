"""What hand-written pages show and the code computes: figures and tables, included by name."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from poolkit import Fact, method
from poolkit.check import CONTRACTS, TOLERANCE
from poolkit.lab.speed_words import markdown as speed_table
from tools import figures
from tools.methods import SPEED, families
from tools.public_names import unwritten
from tools.text import markdown, table

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str]:
    """Fragments that pages include, `made/NAME.md`: their paths and texts."""
    fragments = {
        "families": _families(),
        "contracts": _contracts(),
        "tolerances": _tolerances(),
        "speed": _speed(),
        "keras-speed": _keras_speed(),
        "sharpness": _sharpness(),
        "facts": _facts(),
        "other-names": _other_names(),
    }
    made = {f"made/{name}.txt": text + "\n" for name, text in fragments.items()}
    return made | {"made/changelog.txt": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}


def _families() -> str:
    rows = []
    for family, members in families().items():
        links = ", ".join(f"[{cls.card.name}](/methods/{cls.card.name}.md)" for cls in members)
        rows.append((family, links))
    return table(("family", "methods"), rows)


def _contracts() -> str:
    return table(("contract", "the method …"), [(f"`{c.name}`", markdown(c.sentence)) for c in CONTRACTS])


def _tolerances() -> str:
    units = {"float64": "", "float32": " = 64 · 2⁻²³", "float16": " = 2⁻¹⁰", "bfloat16": " = 2⁻⁷"}
    rows = []
    for dtype, slack in TOLERANCE.items():
        name = str(dtype).removeprefix("torch.")
        rows.append((f"`{name}`", f"{slack:.2g}{units[name]}"))
    return table(("type", "allowed error"), rows)


def _facts() -> str:
    """The ready-made facts, as names of the module that methods import them from."""
    known = {n: v for n, v in vars(import_module("poolkit.method")).items() if isinstance(v, Fact)}
    return "\n\n".join(
        f"```{{py:data}} poolkit.method.{name}\nThe result {markdown(fact.sentence)}.\n```"
        for name, fact in known.items()
    )


def _other_names() -> str:
    """Public names for which no hand-written page of docs/api has a place yet."""
    written = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.md")))
    entries = unwritten(written)
    return f"## Other names\n\n```{{eval-rst}}\n{entries}```" if entries else ""


def _speed() -> str:
    if not SPEED.exists():
        return "No measurement is stored."
    return speed_table(json.loads(SPEED.read_text(encoding="utf-8")))


def _keras_speed() -> str:
    """A training step in Keras with each method, divided by that with its max pooling: a column for each back end."""
    found = {name: ROOT / "results" / f"keras-{name}.json" for name in ("jax", "tensorflow", "torch")}
    stored = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()}
    if not stored:
        return "No measurement is stored."
    ratios = {name: {row["method"]: row["ratio"] for row in one["rows"]} for name, one in stored.items()}
    rows: list[tuple[str, ...]] = [
        (f"`{asked}`", *(_ratio(by.get(asked), stored[name]["bar"]) for name, by in ratios.items()))
        for asked in next(iter(ratios.values()))
    ]
    kept = {name: sum(ratio["median"] <= stored[name]["bar"] for ratio in by.values()) for name, by in ratios.items()}
    heads = (f"{name}, {stored[name]['versions'][name]}" for name in stored)
    words = "; ".join(
        f"{name}: {kept[name]} of {len(ratios[name])} at most {one['bar']}, batch {one['batch']}, "
        f"{one['rounds']} rounds of {one['steps']} steps, {one['machine']['processor']}, "
        f"{one['machine']['cores']} cores, {one['date'][:10]}"
        for name, one in stored.items()
    )
    return table(("method", *heads), rows) + f"\n\nMedian and 95 % interval. {markdown(words)}."


def _ratio(ratio: dict[str, float] | None, bar: float) -> str:
    if ratio is None:
        return ""
    text = f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"
    return text if ratio["median"] <= bar else f"**{text}**"


def _sharpness() -> str:
    """From mean to maximum: the roads there, on one window."""
    roads = [("avg", "avg"), ("soft", "soft"), ("lse:r=3", "lse:r=3"), ("max", "max")]
    svg = figures.response([(name, method(spelling)) for name, spelling in roads])  # type: ignore[misc]
    return f"```{{raw}} html\n{svg}\n```"
