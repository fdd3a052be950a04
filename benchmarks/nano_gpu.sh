#!/usr/bin/env bash
# Train the embedded U-Net on a GPU for MINUTES, then the careless steps; with 7.5, the default, under ten in all.
#
#   python -m tastemaker.nano.build --work build/nano --stage art    # once, with npm
#   benchmarks/nano_gpu.sh build/nano RESULTS [MINUTES]
#
# RESULTS gets the journal, the sheet of samples and the averaged weights of two snapshots in
# parts of 15 MB: `cat careless.safetensors.* > build/nano/snapshots/careless.safetensors`.
set -euo pipefail

art=$(cd "$1/art" && pwd)
results=$(mkdir -p "$2" && cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
work=$(mktemp -d)
trap 'cp "$work"/unet.jsonl "$results"; rm -rf "$work"' EXIT
cp -r "$art" "$work/art"

"${PYTHON:-python3}" -m tastemaker.nano.build --work "$work" --stage unet \
    --batch 512 --steps 1000000 --minutes "${3:-7.5}"
for name in 100 careless; do
    cp "$work/snapshots/$name.png" "$results"
    split --bytes 15M "$work/snapshots/$name.safetensors" "$results/$name.safetensors."
done
