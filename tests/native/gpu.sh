#!/usr/bin/env bash
# On a machine with a CUDA GPU, torch with CUDA, nvcc, cmake and ninja, without network: builds from source, tests the
# kernels on the GPU, a part of them under compute-sanitizer, and measures. Results: build/gpu/*.json.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
results=$PWD/build/gpu
mkdir -p "$results"

"$python" - <<'PYTHON'
import torch

assert torch.cuda.is_available(), "torch finds no CUDA GPU"
print("torch", torch.__version__, "on", torch.cuda.get_device_name(), torch.cuda.get_device_capability())
PYTHON

capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
cmake -S . -B build/native-gpu -G Ninja "-DPython_EXECUTABLE=$(command -v "$python")" -DTRILEMMA_CUDA=1 \
  "-DTRILEMMA_CUDA_ARCHS=${TRILEMMA_CUDA_ARCHS:-$capability}"
cmake --build build/native-gpu
cmake --install build/native-gpu --prefix core/trilemma

export PYTHONPATH=$PWD/core:$PWD/plugins
"$python" -m pytest -q -p no:cacheprovider tests/ops/cuda -m cuda --junitxml "$results/tests.xml"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -m pytest -q -p no:cacheprovider \
      tests/ops/cuda -m cuda -k "spoils or wanted or broke or captured or scales"
  done
else
  echo "skipped: compute-sanitizer was not found"
fi
"$python" benchmarks/cuda_kernels.py --out "$results/benchmarks.json"
