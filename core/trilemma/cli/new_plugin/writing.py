"""From templates to a folder: all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from trilemma.cli.new_plugin.naming import Names, names_of
from trilemma.cli.new_plugin.starters import Starter, starter
from trilemma.errors import UsageError
from trilemma.registry.building import default_models
from trilemma.version import __version__


def write_distribution(distribution: str, kind: str, folder: Path | None = None) -> tuple[Names, Path]:
    """Writes a distribution with one component that works, is typed, and has tests.

    Args:
        distribution: its name.
        kind: a kind of STARTERS, to start from.
        folder: to write into; named after the distribution, in the working directory, by default.

    Returns:
        The names of its parts, and its folder.

    Raises:
        UsageError: for an unknown kind, a name that cannot be used, or a folder that holds something.
    """
    chosen, names = starter(kind), names_of(distribution)
    target = Path(distribution) if folder is None else folder
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; give --path a folder that is empty or does not exist")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; give --path a folder that is empty or does not exist")
    _write(target, dict(_files(chosen, names)))
    return names, target


def _files(chosen: Starter, names: Names) -> Iterator[tuple[str, str]]:
    """Returns the texts of the files by their paths in the distribution."""
    spec = f"{chosen.registered.capitalize()}Spec"
    words = {
        "distribution": names.distribution,
        "component": names.component,
        "package": names.package,
        "class_name": _class_name(names.stem, chosen.suffix),
        "kind": chosen.kind,
        "registered": chosen.registered,
        "spec": spec,
        "imported": ", ".join(sorted((spec, "Registry"))),
        "summary": chosen.summary,
        "usage": Template(chosen.usage).substitute(component=names.component, model=_example_model()),
        "trilemma": ".".join(__version__.split(".")[:2]),
    }
    templates = files(__package__) / "templates"
    common, own = templates / "common", templates / chosen.kind
    source = f"src/{names.package}"
    for path, template in (
        ("pyproject.toml", common / "pyproject.toml.template"),
        ("README.md", common / "README.md.template"),
        (f"{source}/__init__.py", common / "init.py.template"),
        (f"{source}/register.py", common / "register.py.template"),
        (f"{source}/{chosen.kind}.py", own / f"{chosen.kind}.py.template"),
        (f"tests/test_{names.package}.py", own / "test.py.template"),
    ):
        yield path, _filled(template, words)
    yield f"{source}/py.typed", ""


def _filled(template: Traversable, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)


def _class_name(stem: str, suffix: str) -> str:
    """Returns the name of the class; its suffix keeps it apart from the names that its module imports."""
    return stem if stem.endswith(suffix) and stem != suffix else stem + suffix


def _write(target: Path, contents: dict[str, str]) -> None:
    """Writes the files beside their place first, so that nothing half-written is ever in it."""
    exists = target.exists()
    if not exists:
        target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".new-", dir=target if exists else target.parent) as temporary:
        made = Path(temporary) / "made"
        for path, text in contents.items():
            place = made / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        if not exists:
            made.rename(target)
        else:
            # The folder may be somebody's working directory, so it stays and is filled.
            for entry in sorted(made.iterdir()):
                entry.rename(target / entry.name)


def _example_model() -> str:
    """The model that an example draws from."""
    return next(iter(default_models()), "MODEL")
