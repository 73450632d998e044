"""Ratel's sampler and schedule names, and the diffusers schedulers they stand for.

A *sampler* is how one step is taken (`euler`, `dpm++2m`); a *schedule* is how the noise levels are placed (`karras`).
diffusers keeps both in one scheduler class with flags; this module is the one place that maps our names to them.
"""

import inspect
from dataclasses import dataclass, field

import diffusers
import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler
from diffusers.utils.torch_utils import randn_tensor

SD_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}
"""The scheduler_config.json that Stable Diffusion 1 and 2 ship, without the prediction type. It names no
timestep_spacing, so each scheduler class uses its own default (leading for ddim, ddpm, pndm and lcm, else linspace)."""

SCHEDULES = {
    "normal": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
"""Schedule name -> scheduler flags. `sgm_uniform` is what diffusers' documentation maps to trailing spacing."""


class IndependentNoiseSDEScheduler(DPMSolverSDEScheduler):
    """DPM-Solver++ SDE whose noise is drawn afresh at each of its two evaluations per step.

    diffusers takes this sampler's noise from a Brownian tree (torchsde), which ties a step's two draws together and
    depends on that library's internals. Here every draw is standard normal, one generator per image, in call order, as
    in every other stochastic sampler. The arithmetic of the step is diffusers' own.
    """

    generators = None

    def set_timesteps(self, *args, **kwargs):
        """As in diffusers, which forgets its noise source here; put ours back."""
        super().set_timesteps(*args, **kwargs)
        self.noise_sampler = lambda sigma, sigma_next: self.draw()

    def step(self, model_output, timestep, sample, **kwargs):
        """As in diffusers; remembers the shape of the noise to draw."""
        self.noise_shape = sample.shape
        return super().step(model_output, timestep, sample, **kwargs)

    def draw(self):
        """One standard normal tensor of the sample's shape."""
        return randn_tensor(self.noise_shape, generator=self.generators, dtype=torch.float32)


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class with the constructor flags and step arguments that make it the named sampler."""

    scheduler: type
    flags: dict = field(default_factory=dict)
    step_arguments: dict = field(default_factory=dict)
    stochastic: bool = False


SAMPLERS = {
    "ddim": Sampler(diffusers.DDIMScheduler),
    "ddpm": Sampler(diffusers.DDPMScheduler, stochastic=True),
    "pndm": Sampler(diffusers.PNDMScheduler),
    "lms": Sampler(diffusers.LMSDiscreteScheduler),
    "euler": Sampler(diffusers.EulerDiscreteScheduler),
    "euler_a": Sampler(diffusers.EulerAncestralDiscreteScheduler, stochastic=True),
    "heun": Sampler(diffusers.HeunDiscreteScheduler),
    "dpm2": Sampler(diffusers.KDPM2DiscreteScheduler),
    "dpm2_a": Sampler(diffusers.KDPM2AncestralDiscreteScheduler, stochastic=True),
    "dpm++2s": Sampler(diffusers.DPMSolverSinglestepScheduler, {"lower_order_final": True}),
    "dpm++2m": Sampler(diffusers.DPMSolverMultistepScheduler),
    "dpm++2m_sde": Sampler(
        diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, stochastic=True
    ),
    "dpm++3m_sde": Sampler(
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        stochastic=True,
    ),
    "dpm++sde": Sampler(IndependentNoiseSDEScheduler, stochastic=True),
    "unipc": Sampler(diffusers.UniPCMultistepScheduler),
    "deis": Sampler(diffusers.DEISMultistepScheduler),
    "lcm": Sampler(diffusers.LCMScheduler, stochastic=True),
    "tcd": Sampler(diffusers.TCDScheduler, stochastic=True),
}
"""Sampler name -> what runs it."""


def accepted_flags(scheduler: type) -> set[str]:
    """Names of the constructor flags that a scheduler class takes."""
    return set(inspect.signature(scheduler.__init__).parameters) - {"self"}


def supports(sampler: str, schedule: str) -> bool:
    """Whether diffusers offers this schedule for this sampler."""
    return set(SCHEDULES[schedule]) <= accepted_flags(SAMPLERS[sampler].scheduler)


def build_scheduler(sampler: str, schedule: str = "normal", config: dict = SD_CONFIG, **overrides):
    """Makes the scheduler of a sampler and a schedule.

    config: a checkpoint's scheduler_config.json; keys that the class doesn't take are dropped, as `from_config` does.
    overrides: further flags (timestep_spacing, prediction_type, ...); one that the class doesn't take is an error.
    """
    chosen = SAMPLERS[sampler]
    accepted = accepted_flags(chosen.scheduler)
    wanted = {**chosen.flags, **SCHEDULES[schedule], **overrides}
    if unknown := set(wanted) - accepted:
        what = f"sampler {sampler}, schedule {schedule}"
        raise ValueError(f"{what}: {chosen.scheduler.__name__} has no {', '.join(sorted(unknown))}")
    return chosen.scheduler(**{k: v for k, v in {**config, **wanted}.items() if k in accepted})
