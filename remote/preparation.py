"""What a job has before it starts: GPUs, the PATH of its environment, variables, stages."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List, Sequence, Tuple

from remote import environment, files, gpu, session, turns
from remote.layout import Layout, RunFiles


def lease(
    layout: Layout,
    run: RunFiles,
    order: Dict[str, Any],
    say: Callable[[str], None],
    pause: Callable[[], None],
) -> Tuple[List[gpu.Gpu], List[int]]:
    """The GPUs that `order` asks for, and the descriptors of the locks that lease them.

    While too few are free it says why and looks again after each `pause()`, which may raise. While
    other runs lease what it waits for it looks at their locks only: asking nvidia-smi is dear.
    """
    most = int(order.get("gpus_max") or 0)
    if not most:
        return [], []
    needed, shared = order.get("gpu_memory"), order.get("gpu_use") == "share"
    turn = turns.Turn(layout, run.run_id, most=most, memory=needed, shared=shared)
    try:
        return _lease_in_turn(turn, layout, run, order, say, pause)
    finally:
        turn.close()


def _lease_in_turn(
    turn: turns.Turn,
    layout: Layout,
    run: RunFiles,
    order: Dict[str, Any],
    say: Callable[[str], None],
    pause: Callable[[], None],
) -> Tuple[List[gpu.Gpu], List[int]]:
    most, least = int(order["gpus_max"]), gpu.must_have(order, 1)
    needed, shared = order.get("gpu_memory"), order.get("gpu_use") == "share"
    smi, told = gpu.Smi(), ""
    cards: List[gpu.Gpu] = []
    while True:
        os.stat(run.path)  # raises where it was taken away: nothing can be started in it
        leased = sum(gpu.holder(layout, card) is not None for card in cards)
        if not leased or len(cards) - leased >= least:
            try:
                cards = smi.cards()
                least = gpu.must_have(order, len(cards))
                kept = turn.kept(cards)
                return gpu.lease(layout, cards, least, most, needed, run.run_id, shared, kept)
            except (gpu.Busy, gpu.NoAnswer) as exc:
                why = str(exc)
            if why != told:
                told = why
                say("waits for %d GPU(s): %s" % (least, why))
        pause()


def search_path(layout: Layout, order: Dict[str, Any], maker: environment.Maker) -> str:
    """The job's PATH; the environment it asks for is made first, if it is not there yet.

    Raises environment.SetupFailed.
    """
    folder = order.get("path_first")
    if order.get("requirements"):
        wanted = order.get("requirement_files") or [order["requirements"]]
        folder = environment.prepare(layout, wanted, maker)
    return environment.search_path(folder, layout, sys.executable)


def variables(
    run: RunFiles, order: Dict[str, Any], path: str, cards: Sequence[gpu.Gpu]
) -> Dict[str, str]:
    """The job's environment, the values of its secrets included."""
    env = {key: value for key, value in session.plain_env().items() if key != "TERM"}
    env.update(order.get("env") or {})
    env.update(order.get("secrets") or {})
    env.update(
        PATH=path,
        ORCH_RUN_ID=run.run_id,
        ORCH_RUN_DIR=run.path,
        ORCH_RESULTS_DIR=run.results,
        ORCH_CONFIG=run.config,
        ORCH_DATA=run.data,
        ORCH_ATTEMPT=str(run.attempt),
        CUDA_DEVICE_ORDER="PCI_BUS_ID",
        CUDA_VISIBLE_DEVICES=",".join(str(card.number) for card in cards),
        PWD=run.tree,
    )
    return env


def stages_left(run: RunFiles, stages: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """All stages; from the second attempt on those from the one that was begun last."""
    begun = files.read_regular(run.stage, 1000) if run.attempt > 1 else None
    names = [stage["name"].encode("utf-8") for stage in stages]
    return stages[names.index(begun) :] if begun in names else stages
