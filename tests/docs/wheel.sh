#!/usr/bin/env bash
# Follows every page on an installed wheel, far from this checkout and its neighbours.
# wheel.sh PYTHON WHEEL [OPTIONS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1 wheel=$(realpath "$2") place=$(mktemp -d)
shift 2
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH "${!TRILEMMA_@}"

"$python" -m venv "$place/venv"
clean=$place/venv/bin/python
# setuptools builds the plugins that the pages write; build, mypy, pytest and ruff are commands of the pages.
"$clean" -m pip install --disable-pip-version-check --quiet -c constraints.txt "$wheel[train,digits,bench,text]" \
  setuptools build mypy pytest ruff

# The files of the repository, so that the pages' paths and links lead somewhere; the package comes from the wheel.
mkdir "$place/checkout"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
  [[ ! -e $file ]] || printf '%s\0' "$file"
done | xargs -0 cp --parents --target-directory="$place/checkout"
cd "$place/checkout"
"$clean" -c '
import sys
import trilemma, trilemma_plugins
for package in (trilemma, trilemma_plugins):
    assert list(package.__path__)[0].startswith(sys.prefix), package.__path__
print("trilemma", trilemma.__version__, "of", list(trilemma.__path__)[0].removeprefix(sys.prefix))'
# test_guide.py follows the page that tests/docs leaves to it.
OMP_NUM_THREADS=1 TRILEMMA_DOCS_PYTHON=$clean "$clean" -m pytest -q -p no:cacheprovider \
  tests/docs tests/registry/test_guide.py "$@"
