"""Peak memory of a run of the command `tastemaker`, on a CPU or a GPU.

    python benchmarks/memory/measure.py run benchmarks/memory/step.yaml model=FOLDER ...

Everything after the file's name goes to the command as it stands.
"""

import resource
import sys
import time

import torch

from tastemaker.cli.command_line import main

if __name__ == "__main__":
    began = time.monotonic()
    status = main(sys.argv[1:])
    seconds = time.monotonic() - began
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{seconds:.0f} seconds, resident {resident / 1e9:.2f} GB at the peak", end="")
    if torch.cuda.is_available():
        print(f", GPU {torch.cuda.max_memory_allocated() / 1e9:.2f} GB", end="")
    print()
    sys.exit(status)
