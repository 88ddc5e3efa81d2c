"""Drawing samples: `sample` returns them all, `sample_chunks` hands them out as they come."""

from __future__ import annotations

from typing import Any

from trilemma.engine.cascade import chunks_of
from trilemma.engine.request import Request
from trilemma.engine.sampling import SampleChunks, Samples
from trilemma.engine.signature import takes


@takes(Request)
def sample(*arguments: Any, **options: Any) -> Samples:
    """Draws n samples from a trained model and returns them.

    Sample i depends on (seed, i) alone: its noise and every engine step are the same bits alone, in a batch
    and in any chunking; the network's own rounding may depend on the batch shape.

    Args: of Request

    Raises:
        UsageError: for an impossible argument.
        TrilemmaError: where a value is not finite, with the step, the time and the sample.
    """
    return chunks_of(Request(*arguments, **options)).collect()


@takes(Request)
def sample_chunks(*arguments: Any, **options: Any) -> SampleChunks:
    """Returns an iterator of (indices [b], samples [b, C, H, W]), a batch of the network at a time.

    Bad arguments are refused here, before the first batch. To resume an interrupted run, pass the indices that are
    missing.

    Args: of Request

    Raises:
        UsageError: for an impossible argument.
    """
    return chunks_of(Request(*arguments, **options))
