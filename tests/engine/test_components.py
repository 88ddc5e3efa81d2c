"""Processes of several components: what a request gives back, and in what shape."""

import numpy as np
import torch

from trilemma import sample
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.mixture import GaussianMixtureDenoiser

MODEL = GaussianMixtureDenoiser(PhaseProcess())


def test_samples_are_the_data_and_the_trajectory_is_the_state():
    drawn = sample(MODEL, 5, sampler="euler-maruyama", steps=6, batch_size=2, trajectory=True)
    assert drawn.samples.shape == (5, *MODEL.shape)
    assert drawn.trajectory.shape == (7, 5, 2, *MODEL.shape[1:])
    assert torch.equal(drawn.trajectory[-1][:, :1], drawn.samples)


def test_an_archive_holds_both(tmp_path):
    from trilemma.output import write_npz

    drawn = sample(MODEL, 3, sampler="euler-maruyama", steps=4, trajectory=True)
    write_npz(tmp_path / "x.npz", drawn.samples, drawn.provenance, drawn.trajectory, drawn.times)
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["samples"].shape == (3, 1, 1, 1)
        assert archive["trajectory"].shape == (5, 3, 2, 1, 1)
