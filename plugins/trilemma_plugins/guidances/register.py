"""Registers the guidances, and the classifier of one of them."""

from trilemma.registry import ClassifierSpec, GuidanceSpec, ModelSpec, Registry, hookimpl

_GUIDANCES = (
    ("interval", "interval:Interval", "limits what stands to its left to an interval of times", "2404.07724"),
    ("schedule", "schedule:Schedule", "scales what stands to its left over time", "2404.13040"),
    (
        "rescale",
        "rescale:Rescale",
        "gives what stands to its left the plain prediction's spread",
        "2305.08891",
    ),
    (
        "moment-matching",
        "moment_matching:MomentMatching",
        "pixels that are known, through the denoiser's Jacobian",
        "2405.13712",
    ),
    ("classifier", "classifier:Classifier", "gradient of a classifier of noisy states", "2105.05233"),
    ("apg", "apg:APG", "classifier-free guidance with its saturating part weakened", "2410.02416"),
    ("cfgpp", "cfg_pp:CFGpp", "CFG++, as classifier-free guidance with a scale a step", "2406.08070"),
    ("autoguidance", "autoguidance:Autoguidance", "guidance by a weaker version of the model", "2406.02507"),
    (
        "perturbed-attention",
        "perturbed_attention:PerturbedAttention",
        "guidance away from identity self-attention; needs no class",
        "2403.17377",
    ),
)


@hookimpl
def trilemma_register(registry: Registry) -> None:
    for name, target, summary, paper in _GUIDANCES:
        registry.guidance(
            GuidanceSpec(
                name=name,
                target=f"trilemma_plugins.guidances.{target}",
                summary=summary,
                reference=f"arXiv:{paper}",
            )
        )
    registry.classifier(
        ClassifierSpec(
            name="noisy-digit-network",
            target="trilemma_plugins.guidances.network:NoisyDigitNetwork",
            summary="three convolutions scaled and shifted by the time, on noised digits of 28×28 pixels",
        )
    )
    registry.model(
        ModelSpec(
            name="mnist-classifier",
            target="trilemma_plugins.guidances:weights",
            summary="classifier of noised handwritten digits, 28×28",
        )
    )
