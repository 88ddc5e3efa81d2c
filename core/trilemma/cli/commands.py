"""The commands of the core, registered as any plugin registers its own."""

from __future__ import annotations

from trilemma.registry import CommandSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    for name, summary in (
        ("sample", "Draw samples from a model."),
        ("upscale", "Enlarge a picture, or those of a folder, with a model that is told small ones."),
        ("train", "Train a model by a recipe, or resume a run that was stopped."),
        ("eval", "Measure a model's samples against data."),
        ("sweep", "Measure a model's samples at several values of one option, and draw the curve."),
        ("bench", "Measure kernels and sampling loops against their peers."),
        ("calibrate", "Measure which operators are faster by our kernels on this machine."),
        ("models", "List the trained models that are installed, or show the card of one."),
        ("plugins", "List the installed plugins and what they bring."),
        ("doctor", "Say what is installed, which kernels run, and why CUDA is or is not there."),
    ):
        registry.command(CommandSpec(name=name, target=f"trilemma.cli.{name}:command", summary=summary))
