"""Builds the native libraries with CMake and Ninja; everything else is said in pyproject.toml.

TRILEMMA_NATIVE=auto (default) builds them where it can, 1 fails where it cannot, 0 leaves them out: the wheel is for
any Python. Without them the package runs on its reference in PyTorch, and says so in `trilemma doctor`.

TRILEMMA_CUDA=auto (default) also builds `_ops_cuda` where torch has CUDA and nvcc is found, whether or not there is a
GPU; 1 fails where it cannot, 0 leaves it out, check compiles the CUDA sources and installs nothing of them.
TRILEMMA_CUDA_ARCHS="80;90" names the compute capabilities.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT / "building"))  # also where setup.py is run by itself
from target import OLDEST_TORCH, native_choice, torch_folder  # noqa: E402

NATIVE = native_choice()

CUDA_CHOICES = ("TRILEMMA_CUDA", "TRILEMMA_CUDA_ARCHS")


class BuildNative(build_ext):
    """One CMake build that installs the libraries, `_C`, `_ops` and perhaps `_ops_cuda`, into the package."""

    def run(self) -> None:
        try:
            self._build()
            return
        except (OSError, subprocess.CalledProcessError) as error:
            if NATIVE == "1":
                raise SystemExit(
                    f"TRILEMMA_NATIVE=1, but the native libraries were not built: {error}"
                ) from error
            logging.warning("trilemma: the native libraries were not built: %s", error)
        logging.warning("trilemma: installing without native libraries; the reference in PyTorch will run")
        self.extensions = []

    def _build(self) -> None:
        build = ROOT / "build" / f"native-{sys.implementation.cache_tag}"
        environment = {
            **os.environ,
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])),
        }
        torch = torch_folder()
        if torch is None:
            raise FileNotFoundError(
                "no torch {}.{} or later was found; pip install torch".format(*OLDEST_TORCH)
            )
        cmake, ninja = (_tool(name, environment["PATH"]) for name in ("cmake", "ninja"))
        configure = [
            cmake,
            "--fresh",  # another environment's torch and Python may stand in the cache; its objects are kept
            f"-S{ROOT}",
            f"-B{build}",
            "-GNinja",
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DTRILEMMA_TORCH_FOLDER={torch}",
            f"-DTRILEMMA_VERSION={self.distribution.get_version()}",
            *(f"-D{name}={os.environ[name]}" for name in CUDA_CHOICES if os.environ.get(name)),
        ]
        for command in (
            configure,
            [cmake, "--build", str(build)],
            [cmake, "--install", str(build), "--strip", "--prefix", str(self._package_folder())],
        ):
            subprocess.run(command, check=True, env=environment)

    def _package_folder(self) -> Path:
        """Where the package lies: the build folder, or the source tree for an editable install."""
        if self.inplace or self.editable_mode:
            return ROOT / "core" / "trilemma"
        return Path(self.build_lib).resolve() / "trilemma"

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def _tool(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} was not found; pip install {name}")
    return found


LIBRARIES = ("trilemma._C", "trilemma._ops")

setup(
    ext_modules=[] if NATIVE == "0" else [Extension(name, sources=[]) for name in LIBRARIES],
    cmdclass={"build_ext": BuildNative},
)
