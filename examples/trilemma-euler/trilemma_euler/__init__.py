from trilemma.plugins import SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry):
    registry.sampler(SamplerSpec("euler", "trilemma_euler.sampler:Euler", "Euler's method in an angle"))
