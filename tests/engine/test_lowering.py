"""Lowering: the table of the fused step, the rings, and what is refused."""

from __future__ import annotations

import pytest
import torch

from trilemma.engine.program import guided, lower
from trilemma.errors import TrilemmaError
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.numerics.conversion import PARAMETERIZATIONS
from trilemma.ops import layout
from trilemma.testing import GaussianMixtureDenoiser
from trilemma.testing.exact_processes import PhaseProcess
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP

PROCESS = DiscreteVP()


def in_parameterization(name: str, x0: float, eps: float, alpha: float, sigma: float) -> float:
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma, "flow": eps - x0}[
        name
    ]


@pytest.mark.parametrize("network", PARAMETERIZATIONS)
@pytest.mark.parametrize("wanted", PARAMETERIZATIONS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_network_is_read_in_the_samplers_parameterization(
    network: str, wanted: str, clip: float | None
) -> None:
    """f from (z, output) is the wanted parameterization of the same (x₀, ε), after the clip of x₀."""
    t = 0.3
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = PROCESS.alpha(time).item(), PROCESS.sigma(time).item()
    x0, eps = 0.7, -1.3
    z = alpha * x0 + sigma * eps
    output = in_parameterization(network, x0, eps, alpha, sigma)
    row = lower(Tableau((Row(t, 1.0, ((0, 1.0),)),), wanted, clip), network, PROCESS).table[0]

    u = (row[layout.P] * z + row[layout.Q] * output).item()
    u = min(max(u, -row[layout.CLIP].item()), row[layout.CLIP].item())
    f = row[layout.R].item() * z + row[layout.S].item() * u
    if clip is not None:
        x0 = clip
        eps = (z - alpha * x0) / sigma
    assert f == pytest.approx(in_parameterization(wanted, x0, eps, alpha, sigma), rel=1e-11)


def test_one_step_samplers_run_in_place_and_keep_no_history() -> None:
    program = lower(DDIM(eta=1.0).plan(PROCESS, DDIM().times(PROCESS, 20)), "v", PROCESS)
    assert (program.states, program.history) == (1, 0)
    assert {slots.write_history for slots in program.slots} == {-1}
    assert program.noisy == (True,) * 19 + (False,)


def test_a_buffer_is_written_as_soon_as_no_later_row_reads_it() -> None:
    rows = (
        Row(1.0, 1.0, ((0, 1.0),)),
        Row(0.8, 1.0, ((0, 1.0), (1, 2.0)), base=1),
        Row(0.6, 1.0, ((0, 1.0), (2, 3.0))),
        Row(0.4, 1.0, ((0, 1.0),), base=2),
    )
    program = lower(Tableau(rows, "x0"), "x0", PROCESS)
    assert (program.states, program.history) == (2, 2)
    assert [slots.write for slots in program.slots] == [1, 0, 0, 0]
    assert [slots.base for slots in program.slots] == [0, 0, 0, 1]
    # Only the first row's prediction is asked for later.
    assert [slots.write_history for slots in program.slots] == [0, -1, -1, -1]
    assert [slots.history for slots in program.slots] == [(), (0,), (0,), ()]


def test_guidance_is_folded_into_the_row() -> None:
    tableau = DDIM().plan(PROCESS, DDIM().times(PROCESS, 3))
    model = GaussianMixtureDenoiser(PROCESS, parameterization="v")
    plain = lower(tableau, "v", PROCESS)
    bound = CFG(scale=3.0).bind(model, {"class": 1}, DDIM().times(PROCESS, 3))
    assert guided(plain, bound).table[:, layout.W].tolist() == [[3.0, -2.0, 0.0, 0.0]] * 3
    assert plain.table[0, layout.W].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tableau", "words"),
    [
        (Tableau((), "x0"), "no rows"),
        (Tableau((Row(1.0, 1.0, ((1, 1.0),)),), "x0"), "row 1 .* further back"),
        (Tableau((Row(1.0, 1.0, ()), Row(0.5, 1.0, (), base=2)), "x0"), "row 2 .* further back"),
        (Tableau((Row(1.0, 1.0, ((0, 1.0), (0, 1.0))),), "x0"), "lag twice"),
        (Tableau((Row(1.0, 1.0, ()),), "x0", components=3), "3 components"),
        (Tableau((Row(1.0, 1.0, ()),), "v", components=2), "one component only"),
        (Tableau((Row(1.0, 1.0, ()),), "flow", components=2), "one component only"),
        (Tableau((Row(1.0, 1.0, ((0, 1.0),)),), "x0", components=2), "write 2 numbers"),
        (Tableau((Row(1.0, ((1.0, 0.0),), ()),), "x0", components=2), "2 rows of 2"),
        (Tableau((Row(1.0, ((1.0, 0.0), (0.0, 1.0)), ()),), "x0"), "plain number"),
        (Tableau((Row(1.0, 1.0, ()),), "x0", clip=-1.0), "clip"),
        (Tableau((Row(1.0, float("nan"), ()),), "x0"), "step 1 of 1 .* not finite"),
        (Tableau((Row(1.0, 1.0, ()), Row(0.0, 1.0, ((0, 1.0),))), "eps"), "step 2 of 2 .* not finite"),
    ],
)
def test_impossible_tableaus_are_refused_by_row(tableau: Tableau, words: str) -> None:
    with pytest.raises(TrilemmaError, match=words) as error:
        lower(tableau, "x0", PhaseProcess() if tableau.components == 2 else PROCESS)
    assert "\n" not in str(error.value)
