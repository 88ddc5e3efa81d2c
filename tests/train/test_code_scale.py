"""The scale of the codes is that of the whole training set, whichever processes trained, and after a reload."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

import trilemma
from trilemma import lookup
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

# A rate that moves no weight: what differs between the runs is who looks at which images.
RECIPE = """
name = "codes"
steps = 2
batch_size = 32
tensorboard = false
dataset = { spec = "digits" }
autoencoder = { spec = "autoencoder-kl", options = { factor = 2, widths = [8], channels = 3 } }
objective = { spec = "autoencoding:error=absolute,adversarial=0.5,width=4" }
optimizer = { lr = 1e-30, weight_decay = 0.0, warmup = 0 }
"""


def test_one_process_and_two_find_the_same_scale(tmp_path):
    path = tmp_path / "codes.toml"
    path.write_text(RECIPE)
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "trilemma", "train", str(path), "--no-progress", "--out", str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = trilemma.load(tmp_path / "two" / "model")
    one = trilemma.load(train(read_recipe(path), tmp_path / "one").model)
    assert torch.equal(one.code_mean, two.code_mean)
    assert torch.equal(one.code_deviation, two.code_deviation)
    data = lookup.dataset("digits")
    images, _ = data.batch(torch.arange(len(data)))
    scale = two.code_mean.clone(), two.code_deviation.clone()
    two.normalise_over(images.split(100))
    torch.testing.assert_close((two.code_mean, two.code_deviation), scale, rtol=1e-6, atol=1e-6)
    # Half of the images have another scale, which the two together would not have.
    two.normalise_over(images[::2].split(100))
    assert not torch.allclose(two.code_mean, scale[0], rtol=1e-6, atol=1e-6)
