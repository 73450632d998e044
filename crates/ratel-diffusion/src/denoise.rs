//! Runs a sampler's program on the device: latents stay there, the host sends coefficients.

use crate::DiffusionError;
use crate::sampling::{Action, Combine, ModelCall, Reg, Step};
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

/// A UNet and the latents it works on.
pub(crate) struct Denoiser<'e> {
    engine: &'e Engine,
    session: Session,
    guide: Guide,
    target: Target,
    /// `(N, H, W, C)`.
    shape: [usize; 4],
    registers: BTreeMap<Reg, Buffer>,
    /// Where a combination goes that reads the register it writes.
    spare: Option<Buffer>,
}

impl<'e> Denoiser<'e> {
    /// Latents of `(N, C, H, W)`, nothing in them yet.
    pub(crate) fn new(engine: &'e Engine, session: Session, guide: Guide, shape: [usize; 4]) -> Self {
        let target = session.plan().target;
        let [n, c, h, w] = shape;
        Denoiser { engine, session, guide, target, shape: [n, h, w, c], registers: BTreeMap::new(), spare: None }
    }

    /// Starts from noise `(N, H, W, C)`, scaled.
    pub(crate) fn start(&mut self, noise: &HostTensor, scale: f64) -> Result<(), DiffusionError> {
        let scaled: Vec<f32> = noise.data.iter().map(|v| (f64::from(*v) * scale) as f32).collect();
        self.take(Reg::X)?.write_f32(&scaled)?;
        Ok(())
    }

    /// The latents, `(N, H, W, C)`.
    pub(crate) fn latents(&mut self) -> Result<HostTensor, DiffusionError> {
        let values = self.take(Reg::X)?.read_f32()?;
        Ok(HostTensor::new(self.shape, values))
    }

    /// One step: `noise` draws more, `run` runs the UNet.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        noise: &mut dyn FnMut() -> HostTensor,
        mut run: impl FnMut(&Session) -> Result<(), DiffusionError>,
    ) -> Result<(), DiffusionError> {
        for action in &step.actions {
            match action {
                Action::Model(call) => self.call(call, &mut run)?,
                Action::Combine(combine) => self.combine(combine)?,
                Action::Noise => self.take(Reg::Noise)?.write_f32(&noise().data)?,
            }
        }
        Ok(())
    }

    /// Asks the model, guided, into [`Reg::Model`].
    fn call(
        &mut self,
        call: &ModelCall,
        run: &mut impl FnMut(&Session) -> Result<(), DiffusionError>,
    ) -> Result<(), DiffusionError> {
        self.take(call.from)?;
        self.take(Reg::Model)?;
        let [n, h, w, c] = self.shape;
        let copies = if self.guide.is_on() { 2 } else { 1 };
        let count = n * h * w * c;

        let op = Op::from(ScaleLatents { count, copies, scale: call.input_scale as f32, shift: 0.0 });
        self.engine.run_op(&op, None, &[&self.registers[&call.from]], self.session.input("sample")?)?;
        self.session.input("timestep")?.write_f32(&vec![call.timestep; copies * n])?;
        run(&self.session)?;

        let op = if self.guide.is_on() {
            let Guide { scale, rescale } = self.guide;
            Op::from(Guidance { batch: n, count: count / n, scale, rescale })
        } else {
            Op::from(ToVector { count })
        };
        self.engine.run_op(&op, None, &[self.session.output("noise")?], &self.registers[&Reg::Model])?;
        Ok(())
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
