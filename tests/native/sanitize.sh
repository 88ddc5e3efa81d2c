#!/usr/bin/env bash
# The native libraries under the address and undefined-behaviour sanitizers, through the tests of the kernels.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(realpath -s "$1")
build=$PWD/build/sanitize

sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
cmake -S . -B "$build" -G Ninja "-DPython_EXECUTABLE=$python" -DTRILEMMA_CUDA=0 -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  "-DCMAKE_CXX_FLAGS=$sanitizers" >"$build.log"
cmake --build "$build" -j "$(nproc)" >>"$build.log" || { tail -n 30 "$build.log"; exit 1; }
# A package of links to the sources, with these libraries in place of others.
rm -rf "$build/package"
mkdir -p "$build/package/trilemma"
for entry in core/trilemma/*; do
  [[ $entry == *.so ]] || ln -s "$PWD/$entry" "$build/package/trilemma/"
done
cmake --install "$build" --prefix "$build/package/trilemma" >>"$build.log"

libraries=$(for name in libasan libubsan libstdc++; do g++ -print-file-name="$name.so"; done | paste -sd:)
# Python keeps what it allocates, and torch reads its own options: only leaks are not looked for. What the sanitizers
# say goes past Python, so pytest must not hold it back.
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
  PYTHONPATH="$build/package:plugins" TRILEMMA_SANITIZED="$build/package" "$python" -m pytest -q -p no:cacheprovider --capture=sys \
  tests/ops --ignore tests/ops/cuda -m "not slow" "${@:2}"
