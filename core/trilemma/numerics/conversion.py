"""Linear conversion between the parameterizations of a network's output.

With z = αx₀ + σε every parameterization is a fixed linear functional of the pair (x₀, ε), so any two of them
and z are linearly dependent: target = p·z + q·source. Of several components z stands for the part w·z of
the last one and ε for its noise; see `trilemma.interfaces.process.Process.last_component`.
"""

from __future__ import annotations

from torch import Tensor

from trilemma.errors import UsageError

PARAMETERIZATIONS = ("x0", "eps", "v", "score", "flow")
# v and flow are defined for one component only.
OF_SEVERAL_COMPONENTS = ("x0", "eps", "score")


def functional(parameterization: str, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the coefficients (a, b) of a parameterization written as a·x₀ + b·ε.

    x0 = (1, 0), eps = (0, 1), v = αε − σx₀ = (−σ, α) (2202.00512), score = −ε/σ = (0, −1/σ),
    flow = ε − x₀ = (−1, 1), the velocity dz/dt of z = (1 − t)x₀ + tε (2209.03003).
    """
    zero, one = alpha * 0, alpha * 0 + 1
    match parameterization:
        case "x0":
            return one, zero
        case "eps":
            return zero, one
        case "v":
            return -sigma, alpha
        case "score":
            return zero, -1 / sigma
        case "flow":
            return -one, one
    raise UsageError(
        f"unknown parameterization {parameterization!r}; expected one of {', '.join(PARAMETERIZATIONS)}"
    )


def convert(source: str, target: str, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the pair (p, q) with target = p·z + q·source for z = αx₀ + σε.

    Solves p(α, σ) + q(a, b) = (c, d), where source = a·x₀ + b·ε and target = c·x₀ + d·ε, by Cramer's rule:
    with D = αb − σa, p = (cb − ad)/D and q = (αd − σc)/D. Nothing cancels when source equals target.

    Args:
        source, target: names from `PARAMETERIZATIONS`.
        alpha, sigma: float64 tensors of one shape.

    Raises:
        UsageError: for an unknown parameterization.
    """
    a, b = functional(source, alpha, sigma)
    c, d = functional(target, alpha, sigma)
    determinant = alpha * b - sigma * a
    p = (c * b - a * d) / determinant
    q = determinant / determinant if source == target else (alpha * d - sigma * c) / determinant
    return p, q


def noise_error(
    prediction: Tensor, parameterization: str, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Returns ‖ε − ε̂‖² [B] of a prediction [B, ...] in any parameterization, at levels α, σ broadcastable against it.

    The residual of the network's own output is computed and rescaled: an x̂₀ near the data would lose digits if it were
    converted to ε first.
    """
    a, b = functional(parameterization, alpha, sigma)
    residual = a * x + b * noise - prediction
    factor = convert(parameterization, "eps", alpha, sigma)[1]
    return (factor * residual).square().flatten(1).sum(1)


def check_components(parameterization: str, components: int) -> None:
    """Raises UsageError for a parameterization that K components do not have."""
    if components > 1 and parameterization not in OF_SEVERAL_COMPONENTS:
        raise UsageError(
            f"{parameterization!r} is defined for a process of one component only, and this one has {components}; "
            f"give one of {', '.join(OF_SEVERAL_COMPONENTS)}"
        )
