//! Runs a sampler's program on the device: latents stay there, the host sends coefficients.

use crate::DiffusionError;
use crate::sampling::{Action, Combine, ModelCall, NoiseLevel, Prediction, Reg, Step};
use ratel_engine::{Buffer, Engine, Session};
use ratel_kernels::combine::Combine as CombineOp;
use ratel_kernels::guidance::Guidance;
use ratel_kernels::scale_latents::ScaleLatents;
use ratel_kernels::to_vector::ToVector;
use ratel_kernels::{Op, Role, Target};
use ratel_tensor::HostTensor;
use std::collections::BTreeMap;

/// Classifier-free guidance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Guide {
    /// `guidance_scale`.
    pub scale: f32,
    /// `guidance_rescale`.
    pub rescale: f32,
}

impl Guide {
    /// Whether the model is asked twice, with and without the prompt (diffusers' `do_classifier_free_guidance`).
    pub(crate) fn is_on(&self) -> bool {
        self.scale > 1.0
    }
}

/// What the model takes to be the noise in a latent, and what is left without it, both `(N, H, W, C)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// `unconditional`, `conditional` or `guided`.
    pub name: &'static str,
    /// The noise, of unit variance.
    pub noise: HostTensor,
    /// The predicted picture's latents, before a sampler cuts anything off.
    pub x0: HostTensor,
}

/// A step's first call of the model.
pub(crate) struct Inside {
    /// What the model was told.
    pub timestep: f32,
    /// The latents before the step, `(N, H, W, C)`.
    pub x: HostTensor,
    /// What it made of them.
    pub guesses: Vec<Guess>,
}

/// A sum of latents of one shape, each with its factor, on the device.
pub(crate) fn combine(engine: &Engine, target: &Target, terms: &[(HostTensor, f64)]) -> Result<Buffer, DiffusionError> {
    let count = terms.first().map_or(0, |(tensor, _)| tensor.data.len());
    let mut inputs = Vec::new();
    for (tensor, _) in terms {
        let buffer = engine.buffer(Role::Vector, count, target)?;
        buffer.write_f32(&tensor.data)?;
        inputs.push(buffer);
    }
    let out = engine.buffer(Role::Vector, count, target)?;
    let coefficients = terms.iter().map(|(_, factor)| *factor as f32).collect();
    let op = CombineOp { count, coefficients, clamp: None };
    engine.run_op(&Op::from(op), None, &inputs.iter().collect::<Vec<_>>(), &out)?;
    Ok(out)
}

/// What of the last run of a session still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// What was given once is new.
    Nothing,
    /// What the session computes once for many runs.
    Prologue,
}

/// A UNet and the latents it works on.
pub(crate) struct Denoiser<'e> {
    engine: &'e Engine,
    session: Session,
    guide: Guide,
    target: Target,
    /// `(N, H, W, C)`.
    shape: [usize; 4],
    /// Of every call of the model, in order.
    timesteps: Vec<f32>,
    /// Calls so far.
    called: usize,
    registers: BTreeMap<Reg, Buffer>,
    /// Where a combination goes that reads the register it writes.
    spare: Option<Buffer>,
}

impl<'e> Denoiser<'e> {
    /// Latents of `(N, C, H, W)`, nothing in them yet, for a run that calls the model at these timesteps.
    pub(crate) fn new(
        engine: &'e Engine,
        session: Session,
        guide: Guide,
        shape: [usize; 4],
        timesteps: Vec<f32>,
    ) -> Self {
        let target = session.plan().target;
        let [n, c, h, w] = shape;
        let shape = [n, h, w, c];
        let registers = BTreeMap::new();
        Denoiser { engine, session, guide, target, shape, timesteps, called: 0, registers, spare: None }
    }

    /// Starts anew, from a sum of latents `(N, H, W, C)`, each with its factor: noise alone, or a picture's latents and
    /// noise.
    pub(crate) fn start(&mut self, terms: &[(HostTensor, f64)]) -> Result<(), DiffusionError> {
        let sum = combine(self.engine, &self.target, terms)?;
        self.registers.clear();
        self.registers.insert(Reg::X, sum);
        self.called = 0;
        Ok(())
    }

    /// What the last call of the model, asked about `x` of this level, says of the noise and of the picture in it: without
    /// the prompt, with it, and guided; the last alone where there is no guidance.
    fn guesses(
        &mut self,
        x: &HostTensor,
        level: NoiseLevel,
        prediction: Prediction,
    ) -> Result<Vec<Guess>, DiffusionError> {
        let guided = self.take(Reg::Model)?.read_f32()?;
        let answers = self.session.output("noise")?.read_f32()?;
        let mut named: Vec<(&'static str, Vec<f32>)> = Vec::new();
        if self.guide.is_on() {
            let (without, with) = answers.split_at(answers.len() / 2);
            named.extend([("unconditional", without.to_vec()), ("conditional", with.to_vec())]);
        }
        named.push(("guided", guided));
        let factors = prediction.factors(level);
        let mut guesses = Vec::new();
        for (name, answer) in named {
            let of = |[of_x, of_answer]: [f64; 2]| -> Result<HostTensor, DiffusionError> {
                let answer = HostTensor::new(self.shape, answer.clone());
                let sum = combine(self.engine, &self.target, &[(x.clone(), of_x), (answer, of_answer)])?;
                Ok(HostTensor::new(self.shape, sum.read_f32()?))
            };
            guesses.push(Guess { name, noise: of(factors.epsilon)?, x0: of(factors.x0)? });
        }
        Ok(guesses)
    }

    /// The latents, `(N, H, W, C)`.
    pub(crate) fn latents(&mut self) -> Result<HostTensor, DiffusionError> {
        let values = self.take(Reg::X)?.read_f32()?;
        Ok(HostTensor::new(self.shape, values))
    }

    /// One step: `noise` draws more, `run` runs the UNet or what of it can't be reused. Where it is told what the model
    /// predicts, it says what the first call of the model saw and answered.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        reveal: Option<Prediction>,
        noise: &mut dyn FnMut() -> HostTensor,
        mut run: impl FnMut(&Session, Reuse) -> Result<(), DiffusionError>,
    ) -> Result<Option<Inside>, DiffusionError> {
        let mut inside = None;
        for action in &step.actions {
            match action {
                Action::Model(call) => {
                    self.call(call, &mut run)?;
                    if let (Some(prediction), None) = (reveal, &inside) {
                        // a step's first call is about X, whose level is the step's
                        let x = self.latents()?;
                        let guesses = self.guesses(&x, step.level, prediction)?;
                        inside = Some(Inside { timestep: call.timestep, x, guesses });
                    }
                }
                Action::Combine(combine) => self.combine(combine)?,
                Action::Noise => self.take(Reg::Noise)?.write_f32(&noise().data)?,
            }
        }
        Ok(inside)
    }

    /// Asks the model, guided, into [`Reg::Model`].
    fn call(
        &mut self,
        call: &ModelCall,
        run: &mut impl FnMut(&Session, Reuse) -> Result<(), DiffusionError>,
    ) -> Result<(), DiffusionError> {
        self.take(call.from)?;
        self.take(Reg::Model)?;
        let [n, h, w, c] = self.shape;
        let copies = if self.guide.is_on() { 2 } else { 1 };
        let count = n * h * w * c;

        let op = Op::from(ScaleLatents { count, copies, scale: call.input_scale as f32, shift: 0.0 });
        self.engine.run_op(&op, None, &[&self.registers[&call.from]], self.session.input("sample")?)?;
        let reuse = self.tell_timestep(copies * n)?;
        run(&self.session, reuse)?;

        let op = if self.guide.is_on() {
            let Guide { scale, rescale } = self.guide;
            Op::from(Guidance { batch: n, count: count / n, scale, rescale })
        } else {
            Op::from(ToVector { count })
        };
        self.engine.run_op(&op, None, &[self.session.output("noise")?], &self.registers[&Reg::Model])?;
        Ok(())
    }

    /// Tells the model this call's timestep: of a graph of many calls, which of its timesteps that is, and if they are used
    /// up the next ones before.
    fn tell_timestep(&mut self, images: usize) -> Result<Reuse, DiffusionError> {
        let timestep = self.session.input("timestep")?;
        if !self.session.plan().inputs.iter().any(|input| input.name == "row") {
            let own = self.timesteps.get(self.called).copied().unwrap_or_default();
            timestep.write_f32(&vec![own; images])?;
            self.called += 1;
            return Ok(Reuse::Nothing);
        }
        let row = self.called % timestep.count();
        if row == 0 {
            let mut next = self.timesteps.get(self.called..).unwrap_or_default().to_vec();
            next.resize(timestep.count(), 0.0);
            timestep.write_f32(&next)?;
        }
        self.session.input("row")?.write_u32(&vec![row as u32; images])?;
        self.called += 1;
        Ok(if row == 0 { Reuse::Nothing } else { Reuse::Prologue })
    }

    /// A linear combination of registers.
    fn combine(&mut self, combine: &Combine) -> Result<(), DiffusionError> {
        let aliased = combine.terms.iter().any(|(reg, _)| *reg == combine.to);
        let out = if aliased {
            self.spare.take().map_or_else(|| self.allocate(), Ok)?
        } else {
            self.take(combine.to)?;
            self.registers.remove(&combine.to).map_or_else(|| self.allocate(), Ok)?
        };
        for (reg, _) in &combine.terms {
            self.take(*reg)?;
        }
        let inputs: Vec<&Buffer> = combine.terms.iter().map(|(reg, _)| &self.registers[reg]).collect();
        let coefficients = combine.terms.iter().map(|(_, c)| *c as f32).collect();
        let op = CombineOp {
            count: self.shape.iter().product(),
            coefficients,
            clamp: combine.clamp.map(|limit| limit as f32),
        };
        self.engine.run_op(&Op::from(op), None, &inputs, &out)?;
        let before = self.registers.insert(combine.to, out);
        if aliased {
            self.spare = before;
        }
        Ok(())
    }

    /// A register, made when it is first named.
    fn take(&mut self, reg: Reg) -> Result<&Buffer, DiffusionError> {
        if !self.registers.contains_key(&reg) {
            let buffer = self.allocate()?;
            self.registers.insert(reg, buffer);
        }
        Ok(&self.registers[&reg])
    }

    fn allocate(&self) -> Result<Buffer, DiffusionError> {
        Ok(self.engine.buffer(Role::Vector, self.shape.iter().product(), &self.target)?)
    }
}
