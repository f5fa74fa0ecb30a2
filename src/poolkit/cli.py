"""The command line `poolkit`: short verbs that read as a sentence.

Exit codes: 0 fine, 1 the work failed, 2 the request was wrong, 130 interrupted. What a command needs is imported when
it runs, so that help, `list` and `show` need neither torch nor NumPy.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import poolkit
from poolkit import cards, cli_bench, cli_compare, cli_evolve, cli_explore, cli_report, console, own
from poolkit.commands import Command, DataDir, Group, Json, Offline, setting
from poolkit.console import Stop, Wrong, request

# Typer has brought a copy of click along since 2025 and used an installed one before: found through what both export.
_UsageError: Any = typer.BadParameter.__bases__[0]

_OVERVIEW = """\
poolkit: every pooling method for convolutional networks
  look    list, show METHOD
  learn   explore, demo
  train   train, predict RUN IMAGE…, report FOLDER, evolve
  trust   compare METHOD METHOD…, check METHOD, bench, bench training, doctor
  help    poolkit --help, poolkit COMMAND --help

examples
  poolkit show soft:beta=2
  poolkit demo
  poolkit train --data cifar10 --pool avg-topk:k=2"""


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
app = typer.Typer(
    cls=Group, add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS, invoke_without_command=True
)
app.add_typer(cli_bench.app, name="bench")
app.command("evolve", cls=Command, epilog=cli_evolve.EXAMPLES)(cli_evolve.evolve)
app.command("compare", cls=Command, epilog=cli_compare.EXAMPLES)(cli_compare.compare)
app.command("explore", cls=Command, epilog=cli_explore.EXAMPLES)(cli_explore.explore)


def _say_version(wanted: bool) -> None:
    if wanted:
        console.answer(f"poolkit {poolkit.__version__}")
        raise typer.Exit


def _given_folder(text: str) -> Path:
    if not text.strip():
        raise typer.BadParameter("an empty name is no folder; leave the option out for one under runs/")
    return Path(text)


_Open = Annotated[bool, typer.Option("--open", help="Open the report in a browser.")]
_DataName = Annotated[
    str, typer.Option("--data", help="cifar10, cifar100, mnist, fashion-mnist, digits, folder:PATH or npz:FILE.")
]
_Pool = Annotated[
    str,
    typer.Option(help='A method such as avg-topk:k=2, or one for each place: "soft:beta=2 | max". All: poolkit list.'),
]
_Epochs = Annotated[int, typer.Option(help="Passes over the training pictures.")]
_Limit = Annotated[int | None, typer.Option(help="Train on the first so many pictures only.")]
_Trust = Annotated[bool, typer.Option("--trust-net", help="Run the code of a net or a method given as module:name.")]
_Out = Annotated[
    Path | None,
    typer.Option(
        parser=_given_folder,
        metavar="PATH",
        help="The run's folder; by default one under runs/, named by the recipe.",
    ),
]


@app.callback(epilog="poolkit show soft:beta=2\npoolkit demo\npoolkit train --data cifar10 --pool avg-topk:k=2")
def _everything(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", callback=setting("quiet"), expose_value=False, help="Only the answer.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", callback=setting("verbose"), expose_value=False, help="Errors in full."),
    ] = False,
) -> None:
    """Every pooling method for convolutional networks: look, train, check, compare."""
    if ctx.invoked_subcommand is None:
        console.answer(_OVERVIEW)


@app.command("list", cls=Command, epilog="poolkit list\npoolkit list --json")
def _list(
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Answer as the README's table.")] = False,
) -> None:
    """List the pooling methods."""
    if json and markdown:
        raise Wrong("--json and --markdown are two answers\n  ask for one at a time")
    if json:
        return console.emit([cards.entry(cls) for cls in poolkit.METHODS.values()])
    if markdown:
        return console.answer(cards.markdown(poolkit.METHODS.values()))
    rows = [
        (name, cls.kind, cls.card.title, cards.defaults(cls), cls.card.family, cards.year(cls))
        for name, cls in poolkit.METHODS.items()
    ]
    console.table(("name", "kind", "title", "parameters", "family", "year"), rows)
    console.remark("\none of them: poolkit show NAME")


@app.command(cls=Command, epilog="poolkit show max\npoolkit show soft:beta=2\npoolkit show my_module:MyPool")
def show(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Such as soft:beta=2, or module:Class.")],
    json: Json = False,
) -> None:
    """Show a method: equation, facts, source, an example."""
    own.typed(method)
    with request():
        found = poolkit.method(method)
    console.emit(cards.page_values(found)) if json else console.answer(cards.page(found))


@app.command(cls=Command, epilog="poolkit demo\npoolkit demo --data digits --epochs 2 --open")
def demo(
    data: _DataName = "cifar10",
    data_dir: DataDir = None,
    epochs: _Epochs = 10,
    pool: _Pool = "max",
    limit: _Limit = None,
    out: _Out = None,
    offline: Offline = False,
    browser: _Open = False,
) -> None:
    """Carry the tutorial to its end, from data to report.

    Where the data cannot be had, it takes the digits that scikit-learn brings. Called again, it goes on where it was.
    """
    from poolkit.lab import nets, terminal

    own.typed(pool)
    with request():
        spelling = nets.known_pool("tutorial", pool)
    console.tell("pooling: each window of 2×2 cells becomes one, here its largest or its average\n")
    console.tell(cards.drawing(poolkit.Max(), poolkit.Avg()) + "\n")
    loaded = terminal.load_or_digits(data, data_dir, offline)
    asked = terminal.recipe(data=loaded.name, pool=spelling, epochs=epochs, limit=limit)
    part = f"-first-{limit}" if limit else ""
    folder = out or _folder(f"demo-{loaded.name}-{spelling}-{epochs}-epochs{part}")
    run = terminal.carry_out(asked, loaded, folder, again=console.settings.command)
    if run.status == "finished":
        console.tell("\npredictions: the first test pictures\n")
        terminal.tell_examples(run)
    console.tell("")
    console.answer(f"report: {terminal.report(folder, browser)}")
    _stop_if_failed(run)
    _tell_what_next(folder, run)


@app.command(
    cls=Command,
    epilog="poolkit train --pool soft\npoolkit train --recipe quick --pool soft\n"
    "poolkit train --data digits --pool avg-topk:k=2 --epochs 5 --seed 1\n"
    "poolkit train --data folder:pictures --pool gem:p=learn\n"
    "poolkit train --recipe runs/evolve-digits-seed0/winner.json --seed 1",
)
def train(  # every option is an argument: that is how typer reads them
    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10, which it is by default, cifar100, mnist, fashion-mnist, digits, folder:PATH or npz:FILE."
        ),
    ] = None,
    data_dir: DataDir = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="tutorial; quick: the same net to the same accuracy, in far less time; or a file with a recipe, such "
            "as the winner.json of a search."
        ),
    ] = "tutorial",
    net: Annotated[str | None, typer.Option(help="tutorial, timm:NAME or module:callable.")] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help='A method such as avg-topk:k=2, by default max, or one for each place: "soft:beta=2 | max". All: '
            "poolkit list; of your own: module:Class. as-made, the default of other nets, keeps theirs."
        ),
    ] = None,
    pool_at: Annotated[
        str | None, typer.Option(metavar="PLACES", help="Where it stands, such as conv2; by default at every place.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="What makes a vector of the maps: flatten, by default, or a head such as netvlad."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures; tutorial 10, quick 1.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step; tutorial 32, quick 128.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="adam, sgd or muon; tutorial adam, quick muon.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; tutorial 0.001, quick 0.12.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the rate: tutorial constant, quick one-cycle.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of them; quick does.")] = None,
    start: Annotated[str | None, typer.Option(help="First weights: tutorial glorot, quick whitened.")] = None,
    seed: Annotated[int | None, typer.Option(help="All randomness follows from it; by default 0.")] = None,
    limit: _Limit = None,
    out: _Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that torch uses.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Train a network with a pooling method.

    It is tested after each epoch, and a report is written at the end. What is not given is as in the recipe.
    """
    from poolkit.lab import terminal
    from poolkit.lab.other_nets import AS_MADE, names_other

    given: dict[str, Any] = {"data": data, "pool": pool, "seed": seed, "limit": limit, "flip": flip, "start": start}
    given |= {"net": net, "epochs": epochs, "batch": batch, "optimiser": optimiser, "lr": lr, "schedule": schedule}
    given |= {"head": head, "pool_at": pool_at}
    file = Path(recipe) if recipe.endswith(".json") else None
    if net and not file and pool is None and not pool_at and names_other(net):
        given["pool"] = AS_MADE  # what its author made is not replaced unasked
    asked = terminal.recipe_in(file, **given) if file else terminal.recipe(recipe, **given)
    terminal.set_torch(threads, device)
    loaded = terminal.load(asked.data, data_dir, offline)
    asked = dataclasses.replace(asked, data=loaded.name)  # "folder:pics/" and "folder:./pics" are "folder:pics"
    pooling = asked.pool if asked.head == "flatten" else f"{asked.pool}-{asked.head}"
    pooling += f"-at-{asked.pool_at}" if asked.pool_at else ""
    pooling += f"-{asked.net}" if asked.net != "tutorial" else ""
    name = file.stem if file else recipe
    folder = out or _folder(f"{asked.data}-{pooling}{'' if name == 'tutorial' else f'-{name}'}-seed{asked.seed}")
    command = console.settings.command
    again = command if resume else f"{command} --resume"
    run = terminal.carry_out(asked, loaded, folder, again, resume, device)
    page = terminal.report(folder)
    if json:
        console.emit({"folder": str(folder), "report": str(page), **run.as_dict()})
    else:
        console.answer(f"report: {page}")
    _stop_if_failed(run)
    _tell_what_next(folder, run)


@app.command(cls=Command, epilog="poolkit predict runs/cifar10-max-seed0 cat.jpg dog.png")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or WebP; the middle square is taken.")
    ],
    trust_net: _Trust = False,
    json: Json = False,
) -> None:
    """Say what a trained network sees in pictures.

    The three likeliest classes of each. A picture that cannot be read is an error, the others are answered.
    """
    from poolkit.lab import terminal
    from poolkit.lab.pictures import PictureError
    from poolkit.lab.run import Run

    terminal.refuse_unfinished(_existing(run))
    trained = Run.load(run)
    if trust_net:
        terminal.trust(trained)
    model = trained.model()
    answers: list[dict[str, Any]] = []
    for image in images:
        try:
            top = terminal.likeliest(trained, model, image)
        except PictureError as reason:
            console.complain(str(reason))
            answers.append({"image": str(image), "error": str(reason)})
            continue
        answers.append({"image": str(image), **top[0], "top": top})
        if not json:
            words = ", ".join(f"{guess['class']} {guess['probability']:.1%}" for guess in top)
            console.answer(f"{image}: {words}")
    if json:
        console.emit(answers)
    if any("error" in found for found in answers):
        raise typer.Exit(1)


app.command(cls=Command, epilog=cli_report.EXAMPLES)(cli_report.report)


@app.command(
    cls=Command,
    epilog="poolkit check soft:beta=2\npoolkit check all\npoolkit check my_module:MyPool\n"
    "poolkit check my_module:MyPool:b=2",
)
def check(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="A method, all, or module:Class for one of your own.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One contract by its name; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Test whether a method keeps its contracts.

    They are what every pooling method must keep. A failure shows the smallest example that was found.
    """
    subjects = _subjects(method)
    from poolkit.check import check as contracts

    found = []
    for name, subject in subjects:
        console.tell(f"{name}")
        with request():
            results = contracts(subject, tuple(only or ()))
        for result in results:
            found.append({"method": name, **vars(result)})
            if not json:
                _answer_contract(result)
    broken = sum(not result["passed"] for result in found)
    if json:
        console.emit(found)
    else:
        console.answer(f"{len(found) - broken} of {len(found)} contracts hold")
    if broken:
        raise typer.Exit(1)


@app.command(cls=Command, epilog="poolkit doctor\npoolkit doctor --json")
def doctor(data_dir: DataDir = None, json: Json = False) -> None:
    """Say what is installed and what this machine has."""
    from poolkit.doctor import examine, lines

    found = examine(data_dir)
    if json:
        return console.emit(found)
    for name, text in lines(found):
        console.answer(f"{name:20} {text}")


def _stop_if_failed(run: Any) -> None:
    """A run that diverged has been reported; the command still ends as one whose work failed."""
    if run.status == "failed":
        raise Stop(run.message or "the run failed")


def _tell_what_next(folder: Path, run: Any) -> None:
    """The commands that go on with a finished run."""
    from poolkit.lab.nets import PLACES

    where = shlex.quote(str(folder))
    lines = [f"poolkit report {where} --open", f"poolkit predict {where} PICTURE.png"]
    lines += [f"poolkit explore --run {where}"] if run.recipe["net"] in PLACES else []
    console.remark("next: " + "\n      ".join(lines))


def _folder(name: str) -> Path:
    """A folder under runs/ whose name every file system takes."""
    return Path("runs") / re.sub(r"[^\w.=,+-]+", "-", name).strip("-.")


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise Wrong(f"{folder}: there is no such folder\n  give the folder of a run, as poolkit train --out wrote it")
    return folder


def _answer_contract(result: Any) -> None:
    lead, style = ("✓ ", "green") if result.passed else ("✗ ", "red")
    console.answer(f"{result.contract}: {result.sentence}", lead, style)
    if result.detail:
        console.answer(f"    {result.detail}")


def _subjects(asked: str) -> list[tuple[str, Any]]:
    """What `check` is to test, by name: classes, which it tries with several values, or one method as spelled."""
    if asked == "all":
        return list(poolkit.METHODS.items())
    if asked in poolkit.METHODS:
        return [(asked, poolkit.METHODS[asked])]
    head = asked.partition(":")[0]
    # A class is tried with several values, also one of which no value can be made yet.
    if ":" in asked and head not in poolkit.METHODS and asked.count(":") == 1 and "=" not in asked:
        return [(asked, own.imported(asked))]
    own.typed(asked)
    with request():
        found = poolkit.method(asked)
    return [(found.spelling, found)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Arguments: `arguments`, the words after `poolkit`; by default those of this process.
    Returns the exit code: 0 fine, 1 the work failed, 2 the request was wrong, 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        console.start(words)
        code = typer.main.get_command(app).main(words, prog_name="poolkit", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except _UsageError as reason:
        console.complain(_usage(reason))
        return 2
    except Exception as error:
        return console.failed(error)
    return code or 0


def _usage(reason: Any) -> str:
    """What click says of a request it cannot read, and where help is."""
    text = reason.format_message().rstrip(".").replace("'", '"')
    path = reason.ctx.command_path if reason.ctx else "poolkit"
    return f"{text[:1].lower()}{text[1:]}\n  help: {path} --help"
