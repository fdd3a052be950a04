import threading

import torch

from tastemaker.core.hardware import torch_device
from tastemaker.losses import dpo

PAIRS = 100_000


def denormals() -> tuple[int, int]:
    """Number of denormals in the gradient of saturated pairs, in each thread's half of them."""
    margin = torch.linspace(175, 185, PAIRS).requires_grad_()
    dpo(margin, beta=1.0).backward(torch.ones(PAIRS))
    assert margin.grad is not None
    sizes = margin.grad.abs()
    found = (sizes > 0) & (sizes < torch.finfo(sizes.dtype).tiny)
    first, second = found.chunk(2)
    return int(first.sum()), int(second.sum())


def test_gradients_of_saturated_pairs_have_no_denormals_in_any_thread() -> None:
    before, after = [], []

    def compute() -> None:
        # Its own pool of OpenMP, which runs before denormals are flushed.
        torch.set_flush_denormal(False)
        torch.set_num_threads(2)
        before.extend(denormals())
        torch_device("cpu")
        after.extend(denormals())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert min(before) > 0
    assert after == [0, 0]
