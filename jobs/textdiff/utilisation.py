"""How much of a GPU's peak a training step uses (MFU): the model's operations a second over those
that the GPU's matrix units can do.

The operations are the ones torch counts in a forward and backward pass of a real batch, matrix
products and, on a GPU, attention, so no formula can drift from the model: a head that is computed
at masked positions only counts only there. What is computed at padding counts too; batches of
texts of about one length have little of it. A token of every batch is taken to cost what one of a
phase's first batch does: attention to the tokens of a longer text costs more, so that a step is off
by some per cent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

# Dense bf16 with sums in fp32, in operations a second, without sparsity. Source: NVIDIA's data
# sheets of each card; that of the RTX 4090 is in the Ada architecture's white paper.
PEAKS = {
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}


def peak(device: torch.device) -> float | None:
    """Of the GPU, in operations a second; None for a CPU and for a GPU not known here."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """The same by the name that the driver gives: the entry with the most words that it has."""
    words = set(name.replace("-", " ").split())
    known = [key for key in PEAKS if words.issuperset(key.split())]
    return PEAKS[max(known, key=lambda key: len(key.split()))] if known else None


def counted(forward: Callable[[], Tensor]) -> int:
    """Floating-point operations of `forward` and of the backward pass from its sum."""
    with FlopCounterMode(display=False) as counter:
        forward().sum().backward()
    return int(counter.get_total_flops())
