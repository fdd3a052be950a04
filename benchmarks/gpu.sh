#!/usr/bin/env bash
# What needs a GPU, in under ten minutes: the demo in bf16, and speed and memory of SD1.5 and SDXL.
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

step "demo, all in bf16"
"$python" -m tastemaker run demo output="$work" generate.dtype=bf16 score.dtype=bf16 train.dtype=bf16 \
    evaluate.dtype=bf16 2>&1 | tail -n 20 | tee "$results/demo.log"
cp "$work/demo/report.json" "$results/demo.json"

step "speed and memory of SD1.5 and SDXL"
"$python" benchmarks/speed/gpu.py --output "$results" --minutes 8 2>&1 | tee "$results/speed.log"

step "all done"
