#!/usr/bin/env bash
# What needs a GPU, in under ten minutes: the noise-predicting twin, the demo in both precisions,
# and the memory of models of real size.
#
#   benchmarks/gpu.sh RESULTS
#
# Runs the checkout's own code; logs and tables go to RESULTS, all else to a temporary folder.
set -uo pipefail

results=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '\n=== %4d s: %s\n' "$SECONDS" "$*"; }

step "machine"
"$python" -c 'import json; from tastemaker.core.hardware import environment; print(json.dumps(environment()))' |
    tee "$results/environment.json"

step "noise-predicting twin"
"$python" benchmarks/credit/noise_twin.py --output "$work/twin" 2>&1 | tee "$results/noise_twin.log"
cp benchmarks/credit/noise_twin.json benchmarks/credit/noise_twin.md "$results"

for precision in fp32 bf16; do
    step "demo, training in $precision"
    "$python" -m tastemaker run demo output="$work" name="demo-$precision" \
        train.dtype="$precision" 2>&1 | tail -n 20 | tee "$results/demo-$precision.log"
    cp "$work/demo-$precision/report.json" "$results/demo-$precision.json"
done

step "memory"
"$python" benchmarks/memory/sweep.py --models "$work/models" --output "$work/memory" \
    --rows sd15:512 sd15:1024 sdxl:1024 --dtype bf16 2>&1 | tee "$results/memory.md"

step "all done"
