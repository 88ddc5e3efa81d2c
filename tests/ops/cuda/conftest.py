"""Where the CUDA kernels run in these tests: emulated on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma.ops import OPERATORS, native

EMULATED = "trilemma_emulated"
MAPS = "Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift"
SCHEMAS = {
    "group_norm_act": f"(Tensor x, int groups, {MAPS}, Tensor? residual, float eps, bool silu, *, "
    'str backend="auto") -> (Tensor, Tensor, Tensor)',
    "group_norm_act_backward": f"(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int groups, {MAPS}, bool silu, "
    'bool[] wanted, *, str backend="auto") -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
}


class Device:
    """Calls the native operators of a device on tensors of the host; a fallback is an error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.operators = getattr(torch.ops, EMULATED if name == "emulated" else "trilemma")

    def __call__(self, operator: str, *arguments: Any) -> Any:
        """The operator's results on the host; what it writes into its arguments is written into the host's too."""
        moved = [self._moved(argument) for argument in arguments]
        if operator == "linear_step":
            moved[4] = arguments[4]  # the table stays on the host
        results = getattr(self.operators, operator)(*moved, backend="native")
        for argument, there in zip(arguments, moved, strict=True):
            if isinstance(argument, Tensor) and there is not argument:
                argument.copy_(there)
        if isinstance(results, tuple):
            return tuple(result.cpu() for result in results)
        return results.cpu() if isinstance(results, Tensor) else results

    def set_order(self, seed: int) -> None:
        """Threads take turns in an order of this seed where they are emulated; a GPU orders its threads itself."""
        if self.name == "emulated":
            emulator().set_order(seed)

    def _moved(self, argument: Any) -> Any:
        if self.name == "cuda" and isinstance(argument, list):
            return [self._moved(entry) for entry in argument]
        return argument.cuda() if self.name == "cuda" and isinstance(argument, Tensor) else argument


@cache
def emulator() -> ctypes.CDLL:
    """Builds and loads the emulated library, and declares its operators."""
    path = Path(__file__).parent / "emulator" / "build.py"
    spec = importlib.util.spec_from_file_location("emulator_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        library = module.build()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the CUDA sources do not compile for the emulator:\n{error.stderr}")
    declared = torch.library.Library(EMULATED, "DEF")
    for name in OPERATORS:
        for operator in (name, f"{name}_why_not_native"):
            if hasattr(torch.ops.trilemma, operator):
                schema = str(getattr(torch.ops.trilemma, operator).default._schema)
                declared.define(schema.removeprefix("trilemma::"))
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.trilemma, name):
            declared.define(f"{name}{schema}")
    torch.ops.load_library(library)
    loaded = ctypes.CDLL(str(library))
    loaded.set_order.argtypes = [ctypes.c_uint64]
    loaded.declared = declared  # a Library takes its operators with it
    return loaded


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Device:
    """A device that runs the CUDA kernels."""
    if native.load():
        pytest.skip(native.load())
    if request.param == "emulated":
        emulator().set_order(0)
    elif not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU")
    return Device(request.param)
