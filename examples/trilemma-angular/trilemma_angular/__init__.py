from trilemma.registry import SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry):
    registry.sampler(SamplerSpec("angular", "trilemma_angular.sampler:Angular", "Euler's method in an angle"))
