//! The engine: an open device, or the CPU twins, that runs ops one by one.

use crate::buffer::{Allocation, Region};
use crate::device::{self, DeviceChoice, DeviceInfo, DeviceKind};
use crate::dispatch::Dispatch;
use crate::gpu::Gpu;
use crate::memory::Counter;
use crate::tape::{Note, Tape};
use crate::tune::Tuner;
use crate::{Buffer, EngineError, MemoryUse, cpu};
use ratel_kernels::{Choice, Op, Role, Shaders, Target, WeightStorage, choose};
use ratel_tensor::Elem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where kernels' texts come from.
    pub shaders: Shaders,
    /// Whether kernels are compiled with bounds checks, bounded loops and checked divisions. They cost a good part of
    /// the speed. On by default in debug builds; keep it on for kernels edited on disk.
    pub checks: bool,
    /// Whether `Params` may be immediates where the device has them; a uniform buffer otherwise.
    pub immediates: bool,
    /// Where the driver's compiled pipelines are kept between runs, where wgpu can; `None` keeps none. It must be a folder
    /// of this program's own, such as [`crate::cache_folder`].
    pub pipelines: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { shaders: Shaders::Embedded, checks: cfg!(debug_assertions), immediates: true, pipelines: None }
    }
}

/// An open device, or the CPU twins. Copies share it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) place: Where,
    pub(crate) tape: Option<Arc<Tape>>,
    note: Option<String>,
    pub(crate) tuner: Option<Arc<Tuner>>,
    stop: Option<Arc<AtomicBool>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Where {
    Device(Arc<Gpu>),
    Twins(Arc<Counter>),
}

impl Engine {
    /// The devices there are, in the order of their index; the CPU twins are not among them.
    pub fn devices() -> Vec<DeviceInfo> {
        device::adapters().into_iter().map(|(_, info)| info).collect()
    }

    /// Opens a device. With [`DeviceChoice::Auto`] the best that can be opened, down to the CPU twins;
    /// [`Engine::note`] says what it fell back to and why.
    ///
    /// # Errors
    /// If there is no such device, or its driver refuses to open it.
    pub fn open(choice: &DeviceChoice, options: EngineOptions) -> Result<Engine, EngineError> {
        if *choice == DeviceChoice::Cpu {
            return Ok(Engine::twins());
        }
        // shaders from disk are not those that were tested: they keep the checks
        let checks = options.checks || options.shaders != Shaders::Embedded;
        let options = EngineOptions { checks, ..options };

        let (adapters, infos): (Vec<_>, Vec<_>) = device::adapters().into_iter().unzip();
        let mut refused = Vec::new();
        for i in device::candidates(choice, &infos)? {
            match Gpu::open(&adapters[i], infos[i].clone(), options.clone()) {
                Ok(gpu) => {
                    let mut note = refused;
                    if *choice == DeviceChoice::Auto && gpu.info.kind == DeviceKind::Software {
                        note.push(format!(
                            "no GPU was found; running on the software driver {}; --device cpu, the kernels' twins, draws \
                             faster",
                            gpu.info.name
                        ));
                    }
                    let note = (!note.is_empty()).then(|| note.join("; "));
                    return Ok(Engine::at(Where::Device(Arc::new(gpu)), note));
                }
                Err(error) if *choice == DeviceChoice::Auto => refused.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            refused.push("no Vulkan, Metal, DX12 or GL driver was found".to_owned());
        }
        refused.push("running on the processor, by the kernels' twins".to_owned());
        Ok(Engine::at(Where::Twins(Arc::default()), Some(refused.join("; "))))
    }

    fn at(place: Where, note: Option<String>) -> Engine {
        Engine { place, tape: None, note, tuner: None, stop: None }
    }

    /// The CPU twins.
    pub fn twins() -> Engine {
        Engine::at(Where::Twins(Arc::default()), None)
    }

    /// This engine, with a flag that another thread sets (Ctrl-C) to stop whatever takes long on it: loading, tuning,
    /// measuring, and runs. They return [`EngineError::Cancelled`] then.
    pub fn stopped_by(mut self, stop: Arc<AtomicBool>) -> Engine {
        self.stop = Some(stop);
        self
    }

    /// Whether it was told to stop.
    pub(crate) fn check_stop(&self) -> Result<(), EngineError> {
        match &self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(EngineError::Cancelled),
            _ => Ok(()),
        }
    }

    /// What an automatic choice fell back to, and why; `None` when it is a GPU or was asked for.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The device; `None` for the CPU twins.
    pub fn device(&self) -> Option<&DeviceInfo> {
        match &self.place {
            Where::Device(gpu) => Some(&gpu.info),
            Where::Twins(_) => None,
        }
    }

    /// The device's name; `CPU twins` without one.
    pub fn name(&self) -> String {
        self.device().map_or_else(|| "CPU twins".to_owned(), ToString::to_string)
    }

    /// What kernels are chosen for here: activations of type `elem`, layers' matrices of type `weight`, packed as suits
    /// the device. The CPU twins compute in `f32` whatever `elem` says.
    ///
    /// # Errors
    /// If activations are to be `f16` and the device has no such type; `bf16` is a type for files only.
    pub fn target(&self, elem: Elem, weight: Elem) -> Result<Target, EngineError> {
        let info = self.device();
        // Software drivers load lane by lane: two halves in a word halve the loads (measured: 32 against 22 GFLOP/s).
        let packed = info.is_some_and(|info| !info.f16 || (info.kind == DeviceKind::Software && elem == Elem::F32));
        let storage = match weight {
            Elem::F16 if packed => WeightStorage::PackedF16,
            Elem::F16 => WeightStorage::F16,
            Elem::F32 | Elem::BF16 => WeightStorage::F32,
        };
        self.target_stored(elem, storage)
    }

    /// Like [`Engine::target`], with the storage of layers' matrices given.
    ///
    /// # Errors
    /// If the device lacks 16-bit floats and they are asked for.
    pub fn target_stored(&self, elem: Elem, weight: WeightStorage) -> Result<Target, EngineError> {
        let Some(info) = self.device() else { return Ok(Target::twins(weight)) };
        let lacks = |what: &str| EngineError::Unsupported { device: info.to_string(), what: what.to_owned() };
        match elem {
            Elem::BF16 => return Err(lacks("bf16 activations; use f32")),
            Elem::F16 if !info.f16 => {
                return Err(lacks("16-bit floats; use f32 activations, weights may still be f16"));
            }
            _ if weight == WeightStorage::F16 && !info.f16 => return Err(lacks("16-bit floats; use packed ones")),
            _ => {}
        }
        let software = info.kind == DeviceKind::Software;
        let sure = |[least, most]: [u32; 2]| (least == most).then_some(least);
        let subgroup = info.subgroup.and_then(sure);
        let cooperative = info.cooperative_edge();
        let (f16, limits) = (info.f16, info.limits);
        Ok(Target { twins: false, elem, weight, f16, subgroup, cooperative, software, limits })
    }

    /// Memory for `count` values of a role, as a target stores them. Its first contents are zeros.
    ///
    /// # Errors
    /// If the device allows no buffer of that size, or has no room for it.
    pub fn buffer(&self, role: Role, count: usize, target: &Target) -> Result<Buffer, EngineError> {
        let bytes = Buffer::bytes_of(role, count, target);
        Ok(Buffer::new(self.allocate("buffer", bytes)?, role, count, target))
    }

    pub(crate) fn allocate(&self, label: &str, bytes: u64) -> Result<Allocation, EngineError> {
        match &self.place {
            Where::Device(gpu) => Allocation::on_device(gpu, label, bytes),
            Where::Twins(counter) => Allocation::on_host(counter, label, bytes),
        }
    }

    /// Runs one op: `inputs` in the op's order, then its output. The same buffer may be several inputs. The precision is
    /// that of the buffers. Without a `choice` the kernel of the greatest merit runs. Reading a buffer waits for it.
    ///
    /// # Errors
    /// If buffers don't fit the op, the output is an input, or no kernel can do it; what the device reports.
    pub fn run_op(
        &self,
        op: &Op,
        choice: Option<&Choice>,
        inputs: &[&Buffer],
        output: &Buffer,
    ) -> Result<(), EngineError> {
        let target = self.target_of(op, inputs, output)?;
        let regions: Vec<_> = inputs.iter().copied().chain([output]).map(Buffer::region).collect();
        self.run_regions(op, choice, &target, &regions)
    }

    pub(crate) fn run_regions(
        &self,
        op: &Op,
        choice: Option<&Choice>,
        target: &Target,
        regions: &[Region],
    ) -> Result<(), EngineError> {
        self.check_stop()?;
        let tape = self.tape.as_deref().filter(|tape| tape.times_dispatches());
        let note = |choice, held| Note { module: None, op, choice, target, held, used: None };
        let gpu = match &self.place {
            Where::Twins(counter) => {
                let run = || cpu::run(op, target, regions);
                return tape.map_or_else(run, |tape| tape.by_host(&note(None, counter.live()), run));
            }
            Where::Device(gpu) => gpu,
        };
        let chosen;
        let choice = match choice {
            Some(choice) => choice,
            None => {
                chosen = self.choose(op, target)?;
                &chosen
            }
        };
        let dispatch = Dispatch::new(gpu, op, choice, target, regions)?;
        let submit = || {
            gpu.guarded(choice.kernel.name, || {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                dispatch.record(&mut encoder.begin_compute_pass(&Default::default()));
                gpu.queue.submit([encoder.finish()])
            })
        };
        let Some(tape) = tape else { return submit().map(drop) };
        let note = note(Some(choice), gpu.counter.live());
        if gpu.info.timestamps {
            tape.submit(gpu, [(&dispatch, note)].into_iter()).map(drop)
        } else {
            tape.by_host(&note, || gpu.wait(Some(submit()?)))
        }
    }

    pub(crate) fn choose(&self, op: &Op, target: &Target) -> Result<Choice, EngineError> {
        choose(op, target).ok_or_else(|| EngineError::NoKernel { op: format!("{op:?}"), device: self.name() })
    }

    /// The target that an op's buffers were made for.
    fn target_of(&self, op: &Op, inputs: &[&Buffer], output: &Buffer) -> Result<Target, EngineError> {
        let wrong = |what: String| EngineError::Operands { op: op.name().to_owned(), what };
        let operands = op.operands();
        if operands.len() != inputs.len() + 1 {
            return Err(wrong(format!("it has {} inputs and was given {}", operands.len() - 1, inputs.len())));
        }
        let (mut elem, mut weight) = (None, None);
        for (operand, buffer) in operands.iter().zip(inputs.iter().copied().chain([output])) {
            let floats = buffer.elem();
            match (operand.role, floats) {
                (Role::Activation, Some(found)) if elem.is_none_or(|known| known == found) => elem = Some(found),
                (Role::Weight, Some(_)) => weight = Some(buffer.weight_storage()),
                (Role::Vector, Some(Elem::F32)) => {}
                (Role::Ids { .. }, None) if matches!(buffer.role(), Role::Ids { .. }) => {}
                (Role::Bytes, None) if buffer.role() == Role::Bytes => {}
                (role, _) => {
                    let given = floats.map_or_else(|| format!("{:?}", buffer.role()), |elem| elem.to_string());
                    return Err(wrong(format!("`{}` ({role:?}) was given a buffer of {given}", operand.name)));
                }
            }
        }
        let elem = elem.unwrap_or(Elem::F32);
        self.target_stored(elem, weight.unwrap_or(WeightStorage::F32))
    }

    /// Bytes of all live buffers, and the most there were.
    pub fn memory(&self) -> MemoryUse {
        let (counter, allocated) = match &self.place {
            Where::Device(gpu) => {
                (&gpu.counter, gpu.device.generate_allocator_report().map(|report| report.total_allocated_bytes))
            }
            Where::Twins(counter) => (counter, None),
        };
        MemoryUse { live: counter.live(), peak: counter.peak(), allocated }
    }

    /// Bytes of all live buffers.
    pub(crate) fn held(&self) -> u64 {
        match &self.place {
            Where::Device(gpu) => gpu.counter.live(),
            Where::Twins(counter) => counter.live(),
        }
    }

    /// Lets the peak of [`Engine::memory`] start again from what is live now.
    pub fn reset_peak(&self) {
        match &self.place {
            Where::Device(gpu) => gpu.counter.reset_peak(),
            Where::Twins(counter) => counter.reset_peak(),
        }
    }

    /// Waits until everything given to the device is done.
    ///
    /// # Errors
    /// What the device reports.
    pub fn finish(&self) -> Result<(), EngineError> {
        match &self.place {
            Where::Device(gpu) => gpu.flush(),
            Where::Twins(_) => Ok(()),
        }
    }
}
