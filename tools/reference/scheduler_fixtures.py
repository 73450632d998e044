"""Steps diffusers' schedulers with made-up model outputs and writes every number that comes out.

Two files: `schedulers.safetensors` (tensors) and `schedulers.json` (cases). tests/fixtures/README.md describes them.
"""

import itertools
import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from architectures import SD_SCHEDULER
from samplers import SAMPLERS, SCHEDULES, build_scheduler, supports

SHAPE = (1, 4, 4, 4)
MOST_CALLS = 48
START_NOISE_SEED, MODEL_SEED, STEP_NOISE_SEED, IMAGE_SEED = 1, 2, 3, 4


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal f32 numbers from torch's CPU generator."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


SHARED = {
    "start_noise": normal(START_NOISE_SEED, *SHAPE),
    "image": normal(IMAGE_SEED, *SHAPE) * 0.8,
    "model_outputs": normal(MODEL_SEED, MOST_CALLS, *SHAPE),
    "step_noise": normal(STEP_NOISE_SEED, MOST_CALLS, *SHAPE),
}


def case_list() -> list[dict]:
    """Every case as {name, sampler, schedule, steps, overrides, step_arguments, start}."""
    cases = {}

    def add(sampler, schedule="normal", steps=8, start=0, step_arguments=None, **overrides):
        parts = [sampler, schedule, f"{steps}"]
        parts += [f"{k}={v}" for k, v in {**overrides, **(step_arguments or {})}.items()]
        parts += [f"start={start}"] if start else []
        name = ",".join(parts)
        cases[name] = {
            "name": name,
            "sampler": sampler,
            "schedule": schedule,
            "steps": steps,
            "start": start,
            "step_arguments": step_arguments or {},
            "overrides": overrides,
        }

    for sampler, schedule in itertools.product(SAMPLERS, SCHEDULES):
        if supports(sampler, schedule):
            add(sampler, schedule)
            if sampler not in ("lcm", "tcd", "dpm++2s") and schedule in ("normal", "karras"):
                add(sampler, schedule, prediction_type="v_prediction")
    for sampler in SAMPLERS:
        if sampler in ("lcm", "tcd"):
            for steps in (1, 2, 4):
                add(sampler, steps=steps)
            add(sampler, steps=4, prediction_type="v_prediction")
            continue
        for steps in (1, 2, 3) if sampler != "pndm" else (1, 4):
            add(sampler, steps=steps)
        if sampler != "dpm++2s":
            for spacing in ("leading", "linspace", "trailing"):
                add(sampler, timestep_spacing=spacing)
    for sampler in ("ddim", "pndm", "euler", "dpm++2m", "unipc", "lms"):
        add(sampler, steps=20)
        add(sampler, steps=7, timestep_spacing="trailing")
    add("dpm++2m", "karras", steps=20)
    for sampler in ("ddim", "ddpm", "euler", "heun", "dpm++2m", "unipc"):
        add(sampler, prediction_type="sample")
    for sampler in ("ddim", "ddpm", "lcm"):
        add(sampler, steps=8, clip_sample=True)
        add(sampler, steps=8, clip_sample=True, clip_sample_range=2.0, prediction_type="v_prediction")
    for sampler in ("ddim", "ddpm", "euler", "euler_a", "dpm++2m", "dpm++2m_sde", "unipc"):
        for prediction in ("v_prediction", "sample") if sampler != "euler_a" else ("v_prediction",):
            add(sampler, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type=prediction)
    for eta in (0.5, 1.0):
        add("ddim", step_arguments={"eta": eta})
    add("ddim", steps_offset=0, set_alpha_to_one=True)
    add("tcd", steps=4, step_arguments={"eta": 0.0})
    add("pndm", steps=12, skip_prk_steps=False)
    add("euler", final_sigmas_type="sigma_min")
    add("dpm++2m", final_sigmas_type="sigma_min")
    add("dpm++2m", solver_order=1)
    add("dpm++2m", solver_order=3)
    add("dpm++2m", solver_type="heun")
    add("dpm++2m", steps=8, euler_at_final=True)
    add("dpm++2m", steps=20, lower_order_final=False, final_sigmas_type="sigma_min")
    add("unipc", solver_order=3)
    add("unipc", solver_type="bh1", final_sigmas_type="sigma_min")  # bh1 is not finite at sigma 0
    add("unipc", predict_x0=False, final_sigmas_type="sigma_min")
    add("unipc", disable_corrector=[0, 3])
    add("unipc", "karras", solver_order=3, final_sigmas_type="sigma_min")
    add("deis", solver_order=3)
    add("heun", clip_sample=True)
    add("dpm++2m", beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1)
    add("dpm++2m", use_lu_lambdas=True)
    add("dpm++2m_sde", solver_type="heun")
    add("dpm++3m_sde", steps=20)
    add("ddpm", variance_type="fixed_small_log")
    add("ddpm", variance_type="fixed_large")
    add("lcm", steps=4, rescale_betas_zero_snr=True, prediction_type="v_prediction", original_inference_steps=20)
    add("euler", "karras", sigma_min=0.1, sigma_max=10.0)
    add("euler", beta_schedule="linear", num_train_timesteps=400, beta_end=0.02)
    add("dpm++sde", "karras", steps=3)
    for sampler in ("ddim", "ddpm", "euler", "euler_a", "heun", "dpm++2m", "dpm++2m_sde", "unipc", "lms", "pndm"):
        add(sampler, start=4)
    for sampler in ("dpm2", "dpm2_a", "dpm++2s", "dpm++3m_sde", "dpm++sde", "deis", "lcm", "tcd"):
        add(sampler, start=3)
    return list(cases.values())


def run_case(case: dict) -> tuple[dict, dict]:
    """Runs one case. Returns its JSON record and its tensors."""
    scheduler = build_scheduler(case["sampler"], case["schedule"], **case["overrides"])
    scheduler.set_timesteps(case["steps"])
    start = case["start"] * scheduler.order
    timesteps = scheduler.timesteps[start:]
    draws = []

    def next_noise(shape, **_):
        draws.append(len(draws))
        return SHARED["step_noise"][draws[-1]]

    if start:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        sample = scheduler.add_noise(SHARED["image"], SHARED["start_noise"], timesteps[:1])
    else:
        sample = SHARED["start_noise"] * scheduler.init_noise_sigma

    samples, input_scales, draws_before = [sample], [], []
    scheduler_module = sys.modules[SAMPLERS[case["sampler"]].scheduler.__module__]
    with patch.object(scheduler_module, "randn_tensor", next_noise, create=True):
        for call, timestep in enumerate(timesteps):
            draws_before.append(len(draws))
            input_scales.append(float(scheduler.scale_model_input(torch.ones(1), timestep)[0]))
            output = SHARED["model_outputs"][call]
            sample = scheduler.step(output, timestep, sample, **case["step_arguments"]).prev_sample.float()
            samples.append(sample)

    samples = torch.cat(samples)
    if not torch.isfinite(samples).all():
        raise ValueError(f"{case['name']}: not finite")
    record = {
        **case,
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "timesteps": [float(t) for t in timesteps],
        "sigmas": [float(s) for s in getattr(scheduler, "sigmas", [])],
        "input_scales": input_scales,
        "noise_draws": np.diff(draws_before + [len(draws)]).tolist(),
    }
    return record, {case["name"]: samples.contiguous()}


def write(folder: Path) -> None:
    """Writes schedulers.safetensors and schedulers.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(SHARED)
    tensors["alphas_cumprod"] = build_scheduler("ddim").alphas_cumprod
    zero_snr = build_scheduler("ddim", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    tensors["alphas_cumprod_zero_snr"] = zero_snr.alphas_cumprod
    records = []
    for case in case_list():
        record, outputs = run_case(case)
        records.append(record)
        tensors.update({f"samples/{name}": value for name, value in outputs.items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "schedulers.safetensors")
    (folder / "schedulers.safetensors").chmod(0o644)
    with open(folder / "schedulers.json", "w") as out:
        cases = ",\n".join(json.dumps(record) for record in records)
        out.write(f'{{"config": {json.dumps(SD_SCHEDULER)},\n"cases": [\n{cases}\n]}}\n')
    print(f"{len(records)} scheduler cases in {folder}")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
