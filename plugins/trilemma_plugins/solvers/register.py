"""Registers the solvers."""

from trilemma.registry import KernelSpec, Registry, SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.sampler(
        SamplerSpec(
            name="deis",
            target="trilemma_plugins.solvers.deis:DEIS",
            summary="Adams–Bashforth in ε̂ with polynomials in log ρ, ρ or t; one evaluation a step",
            reference="arXiv:2204.13902",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpm",
            target="trilemma_plugins.solvers.dpm_solver:DPMSolver",
            summary="exponential Runge–Kutta in ε̂, order 1, 2 or 3 with as many evaluations a step",
            reference="arXiv:2206.00927",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-2m",
            target="trilemma_plugins.solvers.dpmpp_multistep:DPMpp2M",
            summary="two-step exponential method in x̂₀, midpoint or heun; one evaluation a step",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-2m-sde",
            target="trilemma_plugins.solvers.dpmpp_multistep:DPMpp2MSDE",
            summary="dpmpp-2m along the reverse-time equation, with noise eta=1",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-2s",
            target="trilemma_plugins.solvers.dpmpp_singlestep:DPMpp2S",
            summary="midpoint step in x̂₀; two evaluations a step and no memory",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-2s-ancestral",
            target="trilemma_plugins.solvers.dpmpp_singlestep:DPMpp2SAncestral",
            summary="dpmpp-2s with ancestral noise, eta=1",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-3m",
            target="trilemma_plugins.solvers.dpmpp_multistep:DPMpp3M",
            summary="three-step exponential method in x̂₀; one evaluation a step",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="dpmpp-3m-sde",
            target="trilemma_plugins.solvers.dpmpp_multistep:DPMpp3MSDE",
            summary="dpmpp-3m along the reverse-time equation, with noise eta=1",
            reference="arXiv:2211.01095",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="euler",
            target="trilemma_plugins.solvers.euler:Euler",
            summary="Euler's method in the noise level, with EDM's churn; ddim at eta=0 where there is none",
            reference="arXiv:2206.00364",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="euler-ancestral",
            target="trilemma_plugins.solvers.euler:EulerAncestral",
            summary="Euler's step to a lower noise level, then fresh noise, eta=1",
            reference="arXiv:2006.11239",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="euler-maruyama",
            target="trilemma_plugins.solvers.euler_maruyama:EulerMaruyama",
            summary="Euler's method for the reverse-time stochastic equation",
            reference="arXiv:2011.13456",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="heun",
            target="trilemma_plugins.solvers.heun:Heun",
            summary="trapezoidal rule in the noise level, with EDM's churn; two evaluations a step",
            reference="arXiv:2206.00364",
            variants=("grid=lambda",),
        )
    )
    registry.sampler(
        SamplerSpec(
            name="lcm",
            target="trilemma_plugins.solvers.lcm:LCM",
            summary="consistency step: denoise, then add fresh noise",
            reference="arXiv:2310.04378",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="lms",
            target="trilemma_plugins.solvers.lms:LMS",
            summary="linear multistep in the noise level; one evaluation a step",
            reference="arXiv:2206.00364",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="pndm",
            target="trilemma_plugins.solvers.pndm:PNDM",
            summary="pseudo linear multistep (PLMS) after a step of Heun or three of Runge–Kutta",
            reference="arXiv:2202.09778",
            variants=("warmup=prk",),
        )
    )
    registry.sampler(
        SamplerSpec(
            name="predictor-corrector",
            target="trilemma_plugins.solvers.predictor_corrector:PredictorCorrector",
            summary="Langevin steps, corrections=1, before every ancestral step",
            reference="arXiv:2011.13456",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="restart",
            target="trilemma_plugins.solvers.restart:Restart",
            summary="heun that goes back up in noise and down again, restarts=2 times over an interval",
            reference="arXiv:2306.14878",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="rk",
            target="trilemma_plugins.solvers.rk:RK",
            summary="embedded Runge–Kutta whose steps adapt to a tolerance, sample by sample",
            reference="arXiv:2011.13456",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="sa-solver",
            target="trilemma_plugins.solvers.sa_solver:SASolver",
            summary="stochastic Adams predictor and corrector in x̂₀, noise tau=1; one evaluation a step",
            reference="arXiv:2309.05019",
            variants=("tau=0", "tau=0.5"),
        )
    )
    registry.sampler(
        SamplerSpec(
            name="unipc",
            target="trilemma_plugins.solvers.unipc:UniPC",
            summary="exponential Adams predictor and corrector in x̂₀; one evaluation a step",
            reference="arXiv:2302.04867",
        )
    )
    registry.kernel(
        KernelSpec(
            name="euler-maruyama-step",
            target="trilemma_plugins.solvers.kernels:Backend",
            summary="the step of Euler-Maruyama in the benchmark of the kernels",
        )
    )
