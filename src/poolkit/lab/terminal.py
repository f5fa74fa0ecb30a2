"""A training run as the command line carries it out: what it says before, while it trains, and when it is done."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from poolkit import console, own
from poolkit.console import Wrong, request
from poolkit.lab import checkpoint, data, nets, other_nets
from poolkit.lab.checkpoint import Checkpoint
from poolkit.lab.data import Data, DataMissing
from poolkit.lab.device import fault
from poolkit.lab.folder import claim
from poolkit.lab.pictures import read_picture
from poolkit.lab.recipe import Recipe, named, options
from poolkit.lab.record import read_recipe
from poolkit.lab.run import RUN, Run, RunError, evaluate
from poolkit.lab.train import Progress, Watch, train, trusted
from poolkit.report.words import duration

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def recipe(name: str = "tutorial", **asked: Any) -> Recipe:
    """The recipe of this name with these fields, where they are not None; raises `Wrong` for what is not allowed."""
    own.typed(asked.get("pool"), asked.get("head"))
    with request():
        return named(name, **{field: value for field, value in asked.items() if value is not None})


def recipe_in(path: Path, **asked: Any) -> Recipe:
    """The recipe in a file, such as a search's winner.json, with these fields, where they are not None.

    Raises `RunError` for the file; `Wrong` for what is not allowed, and where the file alone names a net of others or
    a method of one's own.
    """
    given, found = {field: value for field, value in asked.items() if value is not None}, read_recipe(path)
    if "net" not in given and not other_nets.is_allowed(found.net):
        raise Wrong(f"{path} wants to run code: its net is {found.net}\n  if you trust it: --net {found.net}")
    own.typed(given.get("pool"), given.get("head"))
    for name in ("pool", "head"):
        if name not in given and not own.is_allowed(code := getattr(found, name)):
            trusted = shlex.join([f"--{name}", code])
            raise Wrong(f"{path} wants to run code: its {name} is {code}\n  if you trust it: {trusted}")
    with request():
        return dataclasses.replace(found, **given)


def load(name: str, data_dir: Path | None, offline: bool) -> Data:
    """A data set as `poolkit.lab.data.load` finds it; raises `Wrong` for a name that no data set has."""
    kinds = tuple(known.partition(":")[0] + ":" for known in data.NAMES if ":" in known)
    if name not in data.NAMES and not name.startswith(kinds):
        near = difflib.get_close_matches(name.lower(), data.NAMES, n=1)
        hint = f"\n  nearest: {near[0]}" if near else ""
        raise Wrong(f'no data set "{name}"{hint}\n  allowed: {", ".join(data.NAMES)}')
    return data.load(name, data_dir, download=not offline)


def load_or_digits(name: str, data_dir: Path | None, offline: bool) -> Data:
    """A data set, or the digits that scikit-learn brings where it is neither here nor to be had."""
    try:
        return load(name, data_dir, offline)
    except DataMissing as reason:
        console.remark(f"{str(reason).splitlines()[0].rstrip('.')}: taking scikit-learn's digits instead")
        return data.digits()


def set_torch(threads: int | None, device: str) -> None:
    """Set torch's threads, and raise `Wrong` for a device that it cannot use here."""
    if threads:
        torch.set_num_threads(threads)
    if reason := fault(device):
        raise Wrong(f'the device "{device}" cannot be used: {reason}\n  those here: poolkit doctor')


def keep_memory() -> None:
    """Have this process keep the memory it frees; for the command line's own processes, never for a library."""
    # WHY: glibc hands each large block back to the system when it is freed, and a training step frees dozens; the
    # page faults of getting them again cost a fifth to two fifths of the step. No number changes.
    import ctypes
    import platform

    if platform.libc_ver()[0] != "glibc":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (2 << 30) - 1)


def carry_out(asked: Recipe, given: Data, folder: Path, again: str, resume: bool = True, device: str = "cpu") -> Run:
    """Show data and net, train, and say what came out.

    Arguments: `asked` and `given`, recipe and data; `folder`, where the run is written; `again`, the command that
    goes on after Ctrl-C; `resume` and `device`, as `poolkit.lab.train.train` takes them.
    Raises `KeyboardInterrupt` after saying what is safe, and what `train` raises, before anything is printed where
    the folder cannot be used.
    """
    keep_memory()
    model = net_of(asked, given)
    found = claim(folder, asked, given.sha256, resume, lambda said_again_by_train: None)
    tell_data(given, asked.limit)
    pooling = "as made" if asked.pool == other_nets.AS_MADE else asked.pool
    console.tell(
        f"\nnet: {asked.net}, pooling {pooling}{f' at {asked.pool_at}' if asked.pool_at else ''}"
        f"{'' if asked.head == nets.FLATTEN else f', head {asked.head}'}"
    )
    tell_layers(nets.layers(model, given.shape))
    console.tell(f"\n{_beginning(asked, folder, found)}")
    run = found if isinstance(found, Run) else _trained(asked, given, folder, again, resume, device)
    console.tell("")
    if not console.settings.json:
        answer_result(run)
    return run


def net_of(asked: Recipe, given: Data) -> nn.Module:
    """The recipe's net; raises `Wrong` where pictures or pooling do not fit it, and names the layer that does not."""
    pools: list[torch.Size] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if hasattr(layer, "method"):
            pools.append(inputs[0].shape[1:])

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        asked = trusted(asked)
        shape, classes = given.shape, len(given.classes)
        return nets.build(asked.net, asked.pool, shape, classes, asked.seed, asked.head, asked.pool_at)
    except (ValueError, TypeError) as reason:
        sizes = "×".join(map(str, pools[-1])) if pools else ""
        each = asked.pool.split(" | ")
        where = (
            f"pooling layer {len(pools)}, {each[min(len(pools), len(each)) - 1]} on an input of {sizes}: "
            if pools
            else ""
        )
        raise Wrong(f"{where}{reason}") from reason
    finally:
        hook.remove()


def _beginning(asked: Recipe, folder: Path, found: Run | Checkpoint | None) -> str:
    if isinstance(found, Run):
        return f"The run in {folder} is {found.status} already: nothing is trained again."
    if found:
        return f"training: going on after epoch {len(found.epochs)} of {asked.epochs}, in {folder}"
    return f"training: {_plural(asked.epochs, 'epoch')}, into {folder}"


def _trained(asked: Recipe, given: Data, folder: Path, again: str, resume: bool, device: str) -> Run:
    try:
        with watching(asked.epochs) as watch, heeded(watch):
            return train(asked, given, folder, resume, device, watch, console.settings.command)
    except KeyboardInterrupt:
        found = checkpoint.newest(folder, lambda damaged: None)
        done = len(found.epochs) if found else 0
        safe = f"{done} of {asked.epochs} epochs are finished and safe in {folder}."
        console.remark(f"stopped. {safe}\ncontinue: {again}")
        raise


@contextmanager
def heeded(watch: Watch) -> Iterator[None]:
    """Make sure that Ctrl-C stops the training, at the latest after the epoch in which it came.

    A KeyboardInterrupt that reaches Python inside a library's callback or clean-up is lost there, now and then.
    """
    asked: list[int] = []
    follow = watch.epoch

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def epoch(row: dict[str, Any]) -> None:
        follow(row)
        if asked:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job is not to be stopped so
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    watch.epoch = epoch  # type: ignore[method-assign]
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def refuse_unfinished(folder: Path) -> None:
    """Raise `RunError`, which names the command that goes on, for a folder whose run is not finished."""
    if (folder / RUN).exists() or not (found := checkpoint.newest(folder, lambda damaged: None)):
        return
    words = ["poolkit", "train", *options(Recipe.from_dict(found.recipe)), "--out", str(folder), "--resume"]
    command = shlex.join(words)
    raise RunError(
        f"The run in {folder} is unfinished: {len(found.epochs)} of {found.recipe['epochs']} epochs are done.\n"
        f"  Finish it: {command}"
    )


def trust(run: Run) -> None:
    """Let the code run that a run names as its net or as methods: its reader said so."""
    other_nets.allow(str(run.recipe["net"]))
    own.typed(str(run.recipe["pool"]), str(run.recipe.get("head", "")))


def report(folder: Path, browser: bool = False) -> Path:
    """Write a run's report, open it in a `browser` if wanted, and return its path."""
    from poolkit.report.build import build

    path = build(folder)
    if browser:
        show(path)
    return path


def show(page: Path) -> None:
    """Open a page in a browser."""
    import webbrowser

    webbrowser.open(page.resolve().as_uri())


@contextmanager
def watching(epochs: int) -> Iterator[Watch]:
    """An observer that writes to stderr: a line for each epoch, and on a terminal a bar while one is at work."""
    if console.settings.quiet:
        yield Watch()
    elif not sys.stderr.isatty():
        yield Lines(epochs)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Display

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.fields[pace]}"))
        with Display(*columns, console=Console(stderr=True), transient=True) as display:
            yield Bar(epochs, display)


class Lines(Watch):
    """One line for each epoch.

    Arguments: `epochs`, how many the recipe has.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []  # of each epoch of this call

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the epoch's losses and accuracies, and how long the rest should take."""
        self.seconds.append(row["seconds"])
        left = (self.epochs - row["epoch"]) * sum(self.seconds) / len(self.seconds)
        console.remark(self.line(row) + (f"  {duration(left)} left" if row["epoch"] < self.epochs else ""))

    def note(self, text: str) -> None:
        """Write a warning."""
        console.remark(f"note: {text}")

    def line(self, row: dict[str, Any]) -> str:
        """An epoch in one line; a loss that was not finite is said to be so."""
        width = len(str(self.epochs))
        values = ((name, value) for name, value in row["learned"].items() if value is not None)
        return (
            f"epoch {row['epoch']:{width}}/{self.epochs}"
            f"  loss {_loss(row['train_loss'])} (test {_loss(row['test_loss'])})"
            f"  accuracy {row['train_accuracy']:.1%} (test {row['test_accuracy']:.1%})"
            f"  {row['images_per_second']:,.0f} images/s" + "".join(f"  {name} {value:.3f}" for name, value in values)
        )


class Bar(Lines):
    """One line for each epoch, and below them a bar for the one at work.

    Arguments: `epochs`, how many the recipe has; `display`, a running `rich.progress.Progress`.
    """

    def __init__(self, epochs: int, display: Any) -> None:
        super().__init__(epochs)
        self.display = display
        self.task = display.add_task("starting", total=None, pace="")

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the epoch's losses and accuracies above the bar; the terminal folds the line, not rich."""
        self.display.console.print(self.line(row), soft_wrap=True, highlight=False, markup=False)

    def step(self, progress: Progress) -> None:
        """Move the bar."""
        self.display.update(
            self.task,
            description=f"epoch {progress.epoch}/{progress.epochs}",
            completed=progress.step,
            total=progress.steps,
            pace=f"{progress.images_per_second:,.0f} images/s · {duration(progress.eta)} left",
        )


def tell_data(given: Data, limit: int | None) -> None:
    """Print shapes, classes and counts of a data set, as one looks at it before training."""
    counts = [
        (labels == number).sum()
        for labels in (given.train_y[:limit], given.test_y)
        for number in range(len(given.classes))
    ]
    half = len(given.classes)
    first = "" if limit is None else f", of which the first {min(limit, len(given.train_x)):,} are used"
    console.tell(
        f"data: {given.name}, {given.source}\n"
        f"  training pictures  {given.train_x.shape} {given.train_x.dtype}{first}\n"
        f"  test pictures      {given.test_x.shape} {given.test_x.dtype}\n"
        f"  classes            {len(given.classes)}: {_some(given.classes)}\n"
        f"  of each class      {_range(counts[:half])} for training, {_range(counts[half:])} for testing"
    )
    if given.caveat:
        console.remark(f"note: {given.caveat}")


def tell_layers(rows: list[dict[str, Any]]) -> None:
    """Print a net's layers: what each is, what comes out of it, and how many parameters it has."""
    if console.settings.quiet or console.settings.json:
        return
    shown = [(row["layer"], "×".join(map(str, row["output"])), f"{row['parameters']:,}") for row in rows]
    total = sum(row["parameters"] for row in rows)
    console.table(
        ("layer", "output", "parameters"), [*shown, ("all", "", f"{total:,}")], right=("output", "parameters")
    )


def likeliest(run: Run, model: nn.Module, image: Path, most: int = 3) -> list[dict[str, Any]]:
    """The likeliest classes of a picture file, best first: `[{"class": "cat", "probability": 0.91}, …]`.

    Arguments: `run` and its `model`; `image`, the file; `most`, how many.
    Raises `PictureError` for a file that cannot be read as a picture.
    """
    channels, height, width = run.data["shape"]
    pixels = read_picture(image, (channels, height, width))
    chances = evaluate(model, pixels[None], torch.zeros(1, dtype=torch.int64)).probabilities[0]
    best = (-chances).argsort(kind="stable")[:most]
    return [{"class": run.data["classes"][k], "probability": float(chances[k])} for k in best]


def speed_in_words(found: dict[str, Any]) -> str:
    """What `poolkit.lab.bench.bench_training` measured, with the machine and the versions."""
    where = found["machine"]
    names = {"plain": "a plain PyTorch loop", "plain_channels_last": "the same loop in channels-last"}
    lines = []
    for name, words in names.items():
        low, high = found[f"interval_to_{name}"]
        lines.append(
            f"poolkit trains {found[f'ratio_to_{name}']:.2f} times as fast as {words} "
            f"(95 % interval of the median: {low:.2f} to {high:.2f}, {len(found['rounds'])} rounds)"
        )
    speeds = ", ".join(f"{name.replace('_', ' ')} {found[f'{name}_images_per_second']:,.0f}" for name in names)
    return "\n".join(lines) + (
        f"\n  images/s: poolkit {found['poolkit_images_per_second']:,.0f}, {speeds}\n"
        f"  net {found['net']}, pool {found['pool']}, batch {found['batch']}, {found['steps']} steps a round\n"
        f"  {where['processor']}, {where['cores']} cores, {where['threads']} threads, {where['platform']}\n"
        f"  poolkit {where['poolkit']}, torch {where['torch']}, Python {where['python']}, {found['date']}"
    )


def tell_examples(run: Run, most: int = 8) -> None:
    """Print what the net says to the first test pictures."""
    if console.settings.quiet or console.settings.json:
        return
    arrays, classes = run.predictions(), run.data["classes"]
    rows = []
    for label, chances in list(zip(arrays["labels"], arrays["probabilities"].astype(float), strict=True))[:most]:
        best = int(chances.argmax())
        rows.append((classes[label], classes[best], f"{chances[best]:.1%}", "✓" if best == label else "✗"))
    console.table(("test picture of", "the net says", "probability", ""), rows, right=("probability",))


def answer_result(run: Run) -> None:
    """Print what a finished run came to."""
    final, data = run.final, run.data
    if final is None:
        return
    right = round(final["accuracy"] * data["test"])
    console.answer(
        f"accuracy {final['accuracy']:.1%} on the test pictures ({right:,} of {data['test']:,} right), "
        f"loss {_loss(final['loss'])}, after {_plural(len(run.epochs), 'epoch')} in {duration(run.seconds)}"
    )
    if run.overfitting:
        console.answer(run.overfitting)


def _loss(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.3f}" if value < 1e4 else f"{value:.2e}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _range(counts: list[Any]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _some(names: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
