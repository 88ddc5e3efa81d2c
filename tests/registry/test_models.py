"""A model that ships in a plugin is found by its name, and by distribution/name."""

from __future__ import annotations

PLUGIN = """
from trilemma.registry import ModelSpec, hookimpl

@hookimpl
def trilemma_register(registry):
    registry.model(ModelSpec(name="{name}", target="{package}:inner/small", summary="a model"))
"""

CODE = """
import sys
from trilemma.models.loading import model_path
for name in sys.argv[1:]:
    try:
        print(model_path(name))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_models_are_found_by_name_and_by_distribution_and_name(site):
    for package in ("one_models", "two_models"):
        site.install(
            package.replace("_", "-"),
            PLUGIN.format(name="small", package=package),
            module=f"{package}_register",
        )
        folder = site.path / package / "inner" / "small"
        folder.mkdir(parents=True)
        (folder / "model.toml").write_text("format = 1\n")
    done = site.python(CODE, "one-models/small", "two-models/small", "small", "no/such/folder")
    assert done.stdout.splitlines() == [
        str(site.path / "one_models/inner/small"),
        str(site.path / "two_models/inner/small"),
        "UsageError model 'small' is in 2 distributions; write one-models/small or two-models/small",
        "no/such/folder",
    ]
