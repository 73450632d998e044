//! A sampler's run as data: a list of model calls, draws of noise and linear combinations of latents.

use std::collections::BTreeMap;

use super::SamplerError;

/// A latent kept on the device: f32, all of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reg {
    /// The latent being denoised: scaled noise before the first step, the image's latent after the last.
    X,
    /// What the last model call answered, after guidance.
    Model,
    /// The last draw of standard normal noise.
    Noise,
    /// Something kept from step to step (model outputs, derivatives); registers rotate, nothing is copied.
    History(u8),
    /// Something kept within a step.
    Scratch(u8),
}

/// `to` = sum of coefficient * register, clamped to [-clamp, clamp]. `to` may be among the registers read: all are
/// read before it is written. No terms means zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Combine {
    /// The register written.
    pub to: Reg,
    /// At most [`MOST_TERMS`] registers, none twice, each with a finite coefficient other than zero.
    pub terms: Vec<(Reg, f64)>,
    /// Where the result is cut off, on both sides.
    pub clamp: Option<f64>,
}

/// The most terms that a [`Combine`] has.
pub const MOST_TERMS: usize = 6;

/// One evaluation of the model, guidance included; the answer goes to [`Reg::Model`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelCall {
    /// The latent to denoise.
    pub from: Reg,
    /// The model sees `from` times this: diffusers' `scale_model_input`.
    pub input_scale: f64,
    /// The training timestep, perhaps with fraction.
    pub timestep: f32,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the model.
    Model(ModelCall),
    /// Draw standard normal noise into [`Reg::Noise`].
    Noise,
    /// Combine registers.
    Combine(Combine),
}

/// How noisy a latent is: x = signal * image + noise * N(0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// The image's factor; 1 for samplers in sigma space.
    pub signal: f64,
    /// The noise's factor.
    pub noise: f64,
}

impl NoiseLevel {
    /// Noise against image, whatever the sampler's scaling.
    pub fn sigma(self) -> f64 {
        self.noise / self.signal
    }
}

/// One step of a run: what to do, and how noisy [`Reg::X`] is before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// X's level when the step begins. An image-to-image run starts from the first step's level; inpainting renews
    /// the kept part at the next step's level, or takes the clean image after the last.
    pub level: NoiseLevel,
    /// In order.
    pub actions: Vec<Action>,
}

/// A whole run, known before anything is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// A run from noise starts with X = this * N(0, 1): diffusers' `init_noise_sigma`.
    pub initial_noise_scale: f64,
    /// At least one.
    pub steps: Vec<Step>,
}

impl Run {
    /// Every action in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flat_map(|step| &step.actions)
    }

    /// Every model call in order.
    pub fn model_calls(&self) -> impl Iterator<Item = &ModelCall> {
        self.actions().filter_map(|action| match action {
            Action::Model(call) => Some(call),
            _ => None,
        })
    }

    /// How many times noise is drawn.
    pub fn noise_draws(&self) -> usize {
        self.actions().filter(|action| matches!(action, Action::Noise)).count()
    }

    /// The registers that the run uses, X and Model among them.
    pub fn registers(&self) -> Vec<Reg> {
        let mut registers = vec![Reg::X, Reg::Model];
        for action in self.actions() {
            match action {
                Action::Model(call) => registers.push(call.from),
                Action::Noise => registers.push(Reg::Noise),
                Action::Combine(combine) => {
                    registers.push(combine.to);
                    registers.extend(combine.terms.iter().map(|(reg, _)| *reg));
                }
            }
        }
        registers.sort_unstable();
        registers.dedup();
        registers
    }
}

/// Carries a run out in f32 on the host: the reference for the device.
///
/// `x`: the latent that the first step expects, [`Run::initial_noise_scale`] or [`Step::level`] already applied.
/// `model`: answers a scaled latent and a timestep with a latent of the same length. `noise`: draws a latent of the
/// given length. Returns the final X, or an error if a callback's answer has another length.
pub fn run_on_host(
    run: &Run,
    x: Vec<f32>,
    mut model: impl FnMut(&[f32], f32) -> Vec<f32>,
    mut noise: impl FnMut(usize) -> Vec<f32>,
) -> Result<Vec<f32>, SamplerError> {
    let length = x.len();
    let mut registers = BTreeMap::from([(Reg::X, x)]);
    let read = |registers: &BTreeMap<Reg, Vec<f32>>, reg| registers.get(&reg).cloned().unwrap_or(vec![0.0; length]);
    for action in run.actions() {
        let (to, value) = match action {
            Action::Model(call) => {
                let mut input = read(&registers, call.from);
                input.iter_mut().for_each(|value| *value *= call.input_scale as f32);
                (Reg::Model, model(&input, call.timestep))
            }
            Action::Noise => (Reg::Noise, noise(length)),
            Action::Combine(combine) => {
                let mut sum = vec![0.0_f32; length];
                for (reg, coefficient) in &combine.terms {
                    let values = read(&registers, *reg);
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += *coefficient as f32 * value);
                }
                if let Some(limit) = combine.clamp {
                    sum.iter_mut().for_each(|value| *value = value.clamp(-limit as f32, limit as f32));
                }
                (combine.to, sum)
            }
        };
        if value.len() != length {
            return Err(SamplerError::LatentLength { reg: to, expected: length, given: value.len() });
        }
        registers.insert(to, value);
    }
    Ok(read(&registers, Reg::X))
}

/// Writes a run down step by step.
#[derive(Default)]
pub(super) struct Recorder {
    steps: Vec<Step>,
}

impl Recorder {
    /// Begins a step in which X has this level.
    pub(super) fn step(&mut self, signal: f64, noise: f64) {
        self.steps.push(Step { level: NoiseLevel { signal, noise }, actions: Vec::new() });
    }

    /// Asks the model about `from` times `input_scale`.
    pub(super) fn model(&mut self, from: Reg, input_scale: f64, timestep: f64) {
        self.act(Action::Model(ModelCall { from, input_scale, timestep: timestep as f32 }));
    }

    /// Draws noise and names it.
    pub(super) fn noise(&mut self) -> Linear {
        self.act(Action::Noise);
        Reg::Noise.into()
    }

    /// Writes a register and names it.
    pub(super) fn set(&mut self, to: Reg, value: Linear) -> Linear {
        self.set_clamped(to, value, None)
    }

    /// Writes a register, cut off at ±`clamp`, and names it.
    pub(super) fn set_clamped(&mut self, to: Reg, value: Linear, clamp: Option<f64>) -> Linear {
        let terms = value.0.into_iter().filter(|(_, coefficient)| *coefficient != 0.0).collect();
        self.act(Action::Combine(Combine { to, terms, clamp }));
        to.into()
    }

    fn act(&mut self, action: Action) {
        if let Some(step) = self.steps.last_mut() {
            step.actions.push(action);
        }
    }

    /// The run, without combinations that nothing reads. Refuses numbers that f32 cannot hold.
    pub(super) fn finish(mut self, initial_noise_scale: f64) -> Result<Run, SamplerError> {
        drop_dead_stores(&mut self.steps);
        let run = Run { initial_noise_scale, steps: self.steps };
        if run.steps.is_empty() || !holds(initial_noise_scale) {
            return Err(SamplerError::NotFinite { step: 0 });
        }
        for (index, step) in run.steps.iter().enumerate() {
            let finite = holds(step.level.noise)
                && step.actions.iter().all(|action| match action {
                    Action::Model(call) => holds(call.input_scale) && call.timestep.is_finite(),
                    Action::Noise => true,
                    Action::Combine(combine) => {
                        combine.terms.len() <= MOST_TERMS && combine.terms.iter().all(|(_, value)| holds(*value))
                    }
                });
            if !finite {
                return Err(SamplerError::NotFinite { step: index });
            }
        }
        Ok(run)
    }
}

fn holds(value: f64) -> bool {
    (value as f32).is_finite()
}

/// Walks backwards with the set of registers still to be read. Draws stay, for each moves the generator on.
fn drop_dead_stores(steps: &mut [Step]) {
    let mut wanted = vec![Reg::X];
    for step in steps.iter_mut().rev() {
        let mut kept = Vec::with_capacity(step.actions.len());
        for action in step.actions.drain(..).rev() {
            match &action {
                Action::Combine(combine) if !wanted.contains(&combine.to) => continue,
                Action::Combine(combine) => {
                    wanted.retain(|reg| *reg != combine.to);
                    wanted.extend(combine.terms.iter().map(|(reg, _)| *reg));
                }
                Action::Model(call) => wanted.push(call.from),
                Action::Noise => {}
            }
            kept.push(action);
        }
        kept.reverse();
        step.actions = kept;
    }
}

/// A sum of registers with coefficients. Samplers are written with its operators as their papers write them, and
/// the coefficients collect by themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Linear(Vec<(Reg, f64)>);

impl Linear {
    /// A register's coefficient; 0 where it is not in the sum.
    pub(super) fn factor(&self, reg: Reg) -> f64 {
        self.0.iter().filter(|(mine, _)| *mine == reg).map(|(_, factor)| factor).sum()
    }
}

impl From<Reg> for Linear {
    fn from(reg: Reg) -> Linear {
        Linear(vec![(reg, 1.0)])
    }
}

impl std::ops::Add for Linear {
    type Output = Linear;

    fn add(mut self, other: Linear) -> Linear {
        for (reg, value) in other.0 {
            match self.0.iter_mut().find(|(mine, _)| *mine == reg) {
                Some((_, coefficient)) => *coefficient += value,
                None => self.0.push((reg, value)),
            }
        }
        self
    }
}

impl std::ops::Sub for Linear {
    type Output = Linear;

    fn sub(self, other: Linear) -> Linear {
        self + -1.0 * other
    }
}

impl std::ops::Mul<Linear> for f64 {
    type Output = Linear;

    fn mul(self, mut linear: Linear) -> Linear {
        linear.0.iter_mut().for_each(|(_, coefficient)| *coefficient *= self);
        linear
    }
}

impl std::ops::Div<f64> for Linear {
    type Output = Linear;

    fn div(mut self, divisor: f64) -> Linear {
        self.0.iter_mut().for_each(|(_, coefficient)| *coefficient /= divisor);
        self
    }
}

impl std::iter::Sum for Linear {
    fn sum<I: Iterator<Item = Linear>>(terms: I) -> Linear {
        terms.fold(Linear::default(), |sum, term| sum + term)
    }
}
