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

from architectures import SD_SCHEDULER

SCHEDULES = {
    "normal": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
"""Schedule name -> scheduler flags. `sgm_uniform` is what diffusers' documentation maps to trailing spacing."""


class PathNoiseSDEScheduler(DPMSolverSDEScheduler):
    """DPM-Solver++ SDE whose noise follows a Brownian path made of one standard normal draw per part.

    A step asks twice for the path's change over an interval, divided by the root of the interval's length: from sigma
    to the middle, then from sigma to the step's end. diffusers looks both up in a Brownian tree (torchsde), whose
    numbers depend on that library's internals. The change over the whole step is the sum of the changes over its two
    parts, which are independent normals: one is drawn for each part, by one generator per image in call order, as in
    every other stochastic sampler. The distribution and the arithmetic of the step are diffusers' own.
    """

    generators = None

    def set_timesteps(self, *args, **kwargs):
        """As in diffusers, which forgets its noise source here; put ours back."""
        super().set_timesteps(*args, **kwargs)
        self.noise_sampler = self.change

    def step(self, model_output, timestep, sample, **kwargs):
        """As in diffusers; remembers the shape of the noise to draw."""
        self.noise_shape = sample.shape
        return super().step(model_output, timestep, sample, **kwargs)

    def change(self, sigma, sigma_next):
        """The path's change from sigma to sigma_next, of unit variance."""
        if self.state_in_first_order:
            self.middle, self.first_part = sigma_next, self.draw()
            return self.first_part
        share = (sigma - self.middle) / (sigma - sigma_next)
        return share**0.5 * self.first_part + (1 - share) ** 0.5 * self.draw()

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
    "dpm++sde": Sampler(PathNoiseSDEScheduler, stochastic=True),
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


def build_scheduler(sampler: str, schedule: str = "normal", config: dict = SD_SCHEDULER, **overrides):
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
