"""The findings of `trilemma doctor`: versions, native kernels, CUDA, plugins and data, each as plain facts."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trilemma.registry import catalog
from trilemma.registry.manager import unmatched_allowed
from trilemma.version import __version__

Facts = dict[str, Any]

_DEPENDENCIES = ("torch", "numpy", "pillow", "pluggy", "rich", "safetensors", "tqdm", "typer")
_EXTRAS = {"accelerate": "train", "tensorboard": "train", "scikit-learn": "digits"}


def diagnose(with_torch: bool) -> dict[str, Facts]:
    """Returns every section by name; `problems` lists what needs the user's hand. Without torch nothing imports it."""
    sections = {
        "versions": versions(),
        "native": native_library(with_torch),
        "cuda": cuda(with_torch),
        "data": data_folder(),
        "plugins": plugins(),
    }
    sections["problems"] = {
        f"{name}: {key}": reason
        for name, facts in sections.items()
        for key, reason in facts.pop("problems", {}).items()
    }
    return sections


def versions() -> Facts:
    """Returns the versions of Python, trilemma and what it requires; None for what is not installed."""
    found: Facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "trilemma": __version__,
    }
    found |= {name: _version(name) for name in (*_DEPENDENCIES, *_EXTRAS)}
    problems = {
        name: f"{name} is not installed; pip install {name}" for name in _DEPENDENCIES if not found[name]
    }
    installed = _version("trilemma")
    if installed is None:
        problems["trilemma"] = "runs from a source tree, so that no plugin is found; pip install -e ."
    elif installed != __version__:
        problems["trilemma"] = f"is {__version__} but was installed as {installed}; install it again"
    return {**found, "problems": problems}


def native_library(with_torch: bool) -> Facts:
    """Returns whether the native library was built, how, and which backend each operator runs on."""
    facts: Facts = {"library": [str(path) for path in _libraries()] or None, **_build()}
    problems = {}
    if not facts["library"]:
        problems["library"] = (
            "the native library was not built; install a C++ compiler and install trilemma again (the reference runs)"
        )
    if with_torch and _version("torch"):
        try:
            ops = importlib.import_module("trilemma.ops")
            facts["backends"] = {name: str(ops.explain(name)) for name in ops.OPERATORS}
            facts |= _choice(ops.choice.in_force())
        except Exception as error:
            # A diagnosis goes on.
            problems["backends"] = f"{type(error).__name__}: {error}"
    return {**facts, "problems": problems}


def _choice(choice: Any) -> Facts:
    """Returns the level of this machine and what decides between our kernels and PyTorch's."""
    facts: Facts = {"level": choice.machine.level, "choice": str(choice)}
    if choice.problem:
        facts["calibration"] = choice.problem
    elif choice.source != "calibration":
        off = os.environ.get("TRILEMMA_CALIBRATION") == "off"
        facts["calibration"] = (
            "off" if off else "none of this machine; trilemma calibrate makes one in a minute"
        )
    return facts


def cuda(with_torch: bool) -> Facts:
    """Returns whether CUDA can be used and, where it cannot, why."""
    driver, devices = _driver()
    facts: Facts = {"driver": driver, "devices": devices, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    if not with_torch:
        build = (_version("torch") or "").partition("+")[2]
        facts["usable"] = False if build == "cpu" or driver is None else None
        facts["why"] = _why_not(build != "cpu", driver, devices) or "not tried (--no-torch)"
        return facts
    try:
        import torch
    except Exception as error:
        # A diagnosis goes on.
        return {**facts, "usable": False, "why": f"torch cannot be imported: {type(error).__name__}: {error}"}
    facts["torch_cuda"] = torch.version.cuda
    facts["usable"] = bool(torch.cuda.is_available())
    if facts["usable"]:
        facts["names"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["why"] = "torch finds a device"
    else:
        built = torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None
        facts["why"] = _why_not(built, driver, devices) or "torch finds no device, though the driver does"
    return facts


def data_folder() -> Facts:
    """Returns the folder in which data sets are looked for."""
    folder = os.environ.get("TRILEMMA_DATA")
    facts: Facts = {"TRILEMMA_DATA": folder}
    if folder is None:
        return facts
    if not Path(folder).is_dir():
        return {**facts, "problems": {"TRILEMMA_DATA": f"{folder} is no folder; correct TRILEMMA_DATA"}}
    facts["holds"] = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())
    return facts


def plugins() -> Facts:
    """Counts the plugins of each status and says what is wrong with those that do not work."""
    records = catalog().records
    facts: Facts = {}
    for record in records:
        facts[record.status] = facts.get(record.status, 0) + 1
    facts["milliseconds"] = round(sum(record.milliseconds for record in records), 1)
    problems = {
        record.address: f"{record.status}: {record.reason}"
        for record in records
        if record.status not in ("ok", "disabled")
    }
    problems |= {
        record.address: "its module imports torch, which slows every command down; its author must import it later"
        for record in records
        if record.imported_torch
    }
    problems |= dict.fromkeys(unmatched_allowed(), "TRILEMMA_PLUGINS names it, but it is not installed")
    return {**facts, "problems": problems}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _libraries() -> list[Path]:
    found = importlib.util.find_spec("trilemma")
    folders = (found.submodule_search_locations or ()) if found else ()
    return [path for folder in folders for path in sorted(Path(folder).glob("_ops*.so"))]


def _build() -> Facts:
    """Returns what the extension module says of its build and of this processor; a reason where there is none."""
    try:
        module = importlib.import_module("trilemma._C")
    except ImportError as error:
        return {"isa": None, "build": f"not available: {error}"}
    return {"isa": module.cpu_isa(), "build": module.build_info()}


def _driver() -> tuple[str | None, int]:
    """The CUDA version of the NVIDIA driver and the number of devices it shows, asked without torch."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None, 0
    number, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(number))
    if library.cuInit(0) == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    return f"{number.value // 1000}.{number.value % 1000 // 10}", count.value


def _why_not(built_for_cuda: bool, driver: str | None, devices: int) -> str:
    if not built_for_cuda:
        missing = "" if driver else ", and there is no NVIDIA driver"
        return f"this torch is a build for the CPU{missing}; install a CUDA build of torch to use a GPU"
    if driver is None:
        return "there is no NVIDIA driver (libcuda.so.1); install one to use a GPU"
    if devices == 0:
        return "the driver shows no device; check CUDA_VISIBLE_DEVICES and nvidia-smi"
    return ""
