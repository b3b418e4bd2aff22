#!/usr/bin/env bash
# All that one GPU measures, in some six minutes a backend: the identities and a
# switch in `fit`, then benchmarks/gpu.py, on every backend that is installed.
#
#     benchmarks/gpu.sh [FOLDER] [OPTIONS OF gpu.py]
#     benchmarks/gpu.sh /tmp/gpu --quick        # The same on a CPU, small.
#     CIFAR10=cifar10.npz benchmarks/gpu.sh     # Made by gpu.py --pack.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-benchmarks}
shift || true
mkdir -p "$folder"
export PYTHONPATH=$PWD
failed=0
for backend in tensorflow jax torch; do
    if ! python3 -c "import $backend" 2>/dev/null; then
        echo "$backend: not installed, not measured"
        continue
    fi
    export KERAS_BACKEND=$backend
    checks=tests/execution/backend_checks.py
    # TensorFlow's own, whose tolerances know its kernels.
    [ "$backend" = tensorflow ] && checks=tests/optimizer/test_identities.py
    # Matrix products in float32, as the tolerances of the checks suppose.
    JAX_DEFAULT_MATMUL_PRECISION=highest NVIDIA_TF32_OVERRIDE=0 \
        XLA_PYTHON_CLIENT_PREALLOCATE=false \
        PYTHONPATH=$PWD:$PWD/tests python3 -m pytest -n 0 -p no:cacheprovider \
        -q -W default "$checks" || failed=1
    parts=(steps)
    # One backend trains whole models: what compiles the step itself.
    [ "$backend" = torch ] || parts+=(fits)
    python3 benchmarks/gpu.py --output "$folder/gpu.json" \
        --parts "${parts[@]}" "$@" || failed=1
    if [ -n "${CIFAR10:-}" ] && [ "$backend" != torch ]; then
        python3 benchmarks/gpu.py --output "$folder/gpu.json" \
            --parts cifar10 --data "$CIFAR10" "$@" || failed=1
    fi
done
exit $failed
