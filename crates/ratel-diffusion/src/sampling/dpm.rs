//! DPM-Solver++ (arXiv:2206.00927, arXiv:2211.01095) and DEIS (arXiv:2204.13902): exact in the linear part of the
//! ODE, polynomial in the model's answers, with lambda = ln(alpha / sigma) as time.

use super::levels::{Levels, Vp};
use super::program::{Linear, Recorder, Reg, Run};
use super::{Sampler, SamplerConfig, SamplerError, SolverType};

/// The latent that a two-call single step starts from.
const BASE: Reg = Reg::Scratch(0);

/// Answers of the last three steps, in registers that take turns.
fn history(index: usize) -> Reg {
    Reg::History((index % 3) as u8)
}

/// A run's levels as the solvers see them; entry i is where step i begins.
fn vp_levels(levels: &Levels) -> Vec<Vp> {
    levels.sigmas.iter().map(|&sigma| Vp::at(sigma)).collect()
}

/// dpm++2m, dpm++2m_sde, dpm++3m_sde. Source: scheduling_dpmsolver_multistep.py.
pub(super) fn multistep(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let levels = Levels::whole(config, steps)?;
    let places = vp_levels(&levels);
    let with_noise = config.sampler != Sampler::Dpmpp2m;
    let ends_at_zero = levels.sigmas[steps] == 0.0;
    let short = steps < 15 && config.lower_order_final;
    let mut recorder = Recorder::default();
    for index in start..steps {
        let here = places[index];
        recorder.step(here.alpha, here.sigma);
        recorder.model(Reg::X, 1.0, levels.timesteps[index]);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.alpha, here.sigma);
        recorder.set(history(index), halves.x0);
        let left = steps - index;
        let last_is_first_order = left == 1 && (config.euler_at_final || short || ends_at_zero);
        let order = match () {
            () if last_is_first_order => 1,
            () if left == 2 && short => config.solver_order.min(2),
            () => config.solver_order,
        };
        let order = order.min(index - start + 1);
        let noise = with_noise.then(|| recorder.noise());
        let answers = [0, 1, 2].map(|back| Linear::from(history(index.saturating_sub(back))));
        let passed = [0, 1, 2].map(|back| places[index.saturating_sub(back)]);
        let value = update(config.solver_type, order, places[index + 1], passed, answers, noise);
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// One step of order 1 to 3 from `passed[0]` to `to`. `answers`: the images seen at `passed[0]`, `[1]`, `[2]`, of which
/// the first `order` count. `noise`: a standard normal, for the stochastic form.
fn update(
    solver_type: SolverType,
    order: usize,
    to: Vp,
    passed: [Vp; 3],
    answers: [Linear; 3],
    noise: Option<Linear>,
) -> Linear {
    let [here, before, before_that] = passed;
    let [m0, m1, m2] = answers;
    let h = to.lambda - here.lambda;
    // The stochastic form runs the same formulas over twice the time and fills the missing variance with noise.
    let (kept, z) = match noise {
        Some(_) => (to.sigma / here.sigma * (-h).exp(), 2.0 * h),
        None => (to.sigma / here.sigma, h),
    };
    let phi1 = -(-z).exp_m1();
    let mut value = kept * Linear::from(Reg::X) + to.alpha * phi1 * m0.clone();
    if order >= 2 {
        let r0 = (here.lambda - before.lambda) / h;
        let slope = 1.0 / r0 * (m0 - m1.clone());
        let phi2 = 1.0 - phi1 / z;
        value = match (order, solver_type) {
            (2, SolverType::Heun) => value + to.alpha * phi2 * slope,
            (2, _) => value + 0.5 * to.alpha * phi1 * slope,
            _ => {
                let r1 = (before.lambda - before_that.lambda) / h;
                let slope_before = 1.0 / r1 * (m1 - m2);
                let bend = slope.clone() - slope_before;
                // diffusers' stochastic form adds 1/2 where k-diffusion, and the limit of small steps, subtract it.
                let half = if noise.is_some() { -0.5 } else { 0.5 };
                let phi3 = (z - phi1) / (z * z) - half;
                value + to.alpha * phi2 * (slope + r0 / (r0 + r1) * bend.clone()) - to.alpha * phi3 / (r0 + r1) * bend
            }
        };
    }
    match noise {
        Some(noise) => value + to.sigma * (-(-2.0 * h).exp_m1()).sqrt() * noise,
        None => value,
    }
}

/// dpm++2s: steps in pairs, the second over both from where the first began. Source:
/// scheduling_dpmsolver_singlestep.py with order 2 and `lower_order_final`.
pub(super) fn singlestep(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let levels = Levels::whole(config, steps)?;
    let places = vp_levels(&levels);
    let mut recorder = Recorder::default();
    for index in start..steps {
        let (here, to) = (places[index], places[index + 1]);
        recorder.step(here.alpha, here.sigma);
        recorder.model(Reg::X, 1.0, levels.timesteps[index]);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.alpha, here.sigma);
        let m0 = recorder.set(history(index), halves.x0);
        let second_of_pair = index % 2 == 1 && index + 1 < steps && index > start;
        if second_of_pair {
            let m1 = Linear::from(history(index - 1));
            let from = places[index - 1];
            let h = to.lambda - from.lambda;
            let slope = h / (here.lambda - from.lambda) * (m0 - m1.clone());
            let phi1 = -(-h).exp_m1();
            let weight = match config.solver_type {
                SolverType::Heun => 1.0 - phi1 / h,
                _ => 0.5 * phi1,
            };
            let value = to.sigma / from.sigma * Linear::from(BASE) + to.alpha * phi1 * m1 + to.alpha * weight * slope;
            recorder.set(Reg::X, value);
        } else {
            let base = recorder.set(BASE, Reg::X.into());
            let shrink = to.sigma / here.sigma;
            recorder.set(Reg::X, shrink * base + to.alpha * (1.0 - (here.lambda - to.lambda).exp()) * m0);
        }
    }
    recorder.finish(1.0)
}

/// deis: the polynomial is in ln rho, rho = sigma / alpha. Source: scheduling_deis_multistep.py. A run ends at the
/// smallest sigma, not at zero.
pub(super) fn deis(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let levels = Levels::whole(config, steps)?;
    let places = vp_levels(&levels);
    let short = steps < 15 && config.lower_order_final;
    let mut recorder = Recorder::default();
    for index in start..steps {
        let (here, to) = (places[index], places[index + 1]);
        recorder.step(here.alpha, here.sigma);
        recorder.model(Reg::X, 1.0, levels.timesteps[index]);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.alpha, here.sigma);
        recorder.set(history(index), halves.epsilon);
        let order = match steps - index {
            left @ (1 | 2) if short => config.solver_order.min(left),
            _ => config.solver_order,
        };
        let order = order.min(index - start + 1);
        // Of step i: the integral over rho of the polynomial in ln rho that is 1 there and 0 at the others.
        let logs: Vec<f64> = (0..order).map(|back| -places[index - back].lambda).collect();
        let change: Linear = (0..order)
            .map(|back| {
                let others: Vec<f64> = (0..order).filter(|&k| k != back).map(|k| logs[k]).collect();
                let scale: f64 = others.iter().map(|other| logs[back] - other).product();
                let integral = log_polynomial_integral(-to.lambda, &others) - log_polynomial_integral(logs[0], &others);
                integral / scale * Linear::from(history(index - back))
            })
            .sum();
        recorder.set(Reg::X, to.alpha / here.alpha * Linear::from(Reg::X) + to.alpha * change);
    }
    recorder.finish(1.0)
}

/// The antiderivative over rho, at ln rho = l, of the product of (ln rho - root) over at most two roots.
fn log_polynomial_integral(l: f64, roots: &[f64]) -> f64 {
    l.exp()
        * match *roots {
            [] => 1.0,
            [a] => l - 1.0 - a,
            [a, b, ..] => l * l - 2.0 * l + 2.0 - (a + b) * (l - 1.0) + a * b,
        }
}
