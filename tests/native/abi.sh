#!/usr/bin/env bash
# The libraries built against one torch, loaded and tested in another: abi.sh PYTHON_OF_THE_BUILD PYTHON_OF_THE_TEST
set -euo pipefail
cd "$(dirname "$0")/../.."
built_by=$1 run_by=$2
"$run_by" -c 'import torch' 2>/dev/null || {
  echo "no torch in $run_by; make one with: python3 -m venv DIRECTORY && DIRECTORY/bin/pip install torch==2.11.0" \
    "numpy packaging pillow rich safetensors tomli-w tqdm typer pytest hypothesis scipy"
  exit 1
}
"$built_by" -c 'import torch; print("built against torch", torch.__version__)'
"$run_by" -c 'import torch; print("tested in torch", torch.__version__)'
# _C belongs to the Python of the build; _ops to no Python.
PYTHONPATH=core:plugins "$run_by" -c 'from trilemma.ops import native; assert not native.load(), native.load()'
PYTHONPATH=core:plugins OMP_NUM_THREADS=1 "$run_by" -m pytest -q -p no:cacheprovider tests/ops --ignore tests/ops/cuda
