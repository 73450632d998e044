//! An open device: its queue, its features, and the way its errors become ours.

use crate::device::DeviceInfo;
use crate::error::one_line;
use crate::memory::Counter;
use crate::pipeline::Pipelines;
use crate::pipeline_cache::PipelineCache;
use crate::{EngineError, EngineOptions};
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// An open device.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) info: DeviceInfo,
    pub(crate) options: EngineOptions,
    /// Whether `Params` are immediates; a uniform buffer otherwise.
    pub(crate) immediates: bool,
    pub(crate) counter: Arc<Counter>,
    pub(crate) pipelines: Pipelines,
    /// What the driver compiled, kept on the disk.
    pub(crate) kept_pipelines: Option<PipelineCache>,
    /// What is bound where an op lacks an operand that its kernel names.
    pub(crate) absent: wgpu::Buffer,
    /// Bytes written through the queue and not waited for.
    pub(crate) staged: AtomicU64,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// What went wrong outside of any call.
#[derive(Clone, Debug)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

impl Gpu {
    /// Opens a device with its own limits and what of its features kernels can use.
    pub(crate) fn open(adapter: &wgpu::Adapter, info: DeviceInfo, options: EngineOptions) -> Result<Gpu, EngineError> {
        let wanted = wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::IMMEDIATES
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE;
        let cooperative = match info.cooperative_edge() {
            Some(_) => wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
            None => wgpu::Features::empty(),
        };
        // SAFETY: the one experimental feature is that of cooperative matrices. What wgpu leaves unchecked of it is held
        // by the kernels that use it: sizes are those that the device reports, subgroups are full and in step, and every
        // such kernel is run between guard bands against its twin by the test of kernels.
        #[allow(unsafe_code)]
        let experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("ratel"),
            required_features: adapter.features() & (wanted | cooperative),
            experimental_features,
            required_limits: adapter.limits(),
            // Plans allocate a few large buffers of known sizes: blocks beyond that would only be waste.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|e| EngineError::Open { device: info.to_string(), why: one_line(&e.to_string()) })?;

        let fault = Arc::new(Mutex::new(None));
        let at_loss = fault.clone();
        device.set_device_lost_callback(move |_, why| store(&at_loss, Fault::Lost(one_line(&why))));
        let at_error = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            let why = describe(&error);
            store(
                &at_error,
                match error {
                    wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory(why),
                    _ => Fault::Other(why),
                },
            );
        }));

        let absent = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("absent operands"),
            size: 256,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let folder = options.pipelines.as_deref();
        let kept_pipelines = folder.and_then(|folder| PipelineCache::open(&device, &adapter.get_info(), &info, folder));
        Ok(Gpu {
            kept_pipelines,
            immediates: options.immediates && info.immediate_bytes > 0,
            device,
            queue,
            info,
            options,
            counter: Arc::default(),
            pipelines: Pipelines::default(),
            absent,
            staged: AtomicU64::new(0),
            fault,
        })
    }

    /// What has gone wrong since the last look. A lost device stays lost.
    pub(crate) fn check(&self, what: &str) -> Result<(), EngineError> {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match &*fault {
            Some(Fault::Lost(why)) => return Err(EngineError::Lost(why.clone())),
            _ => fault.take(),
        };
        drop(fault);
        match found {
            Some(Fault::OutOfMemory(why)) => Err(self.out_of_memory(what, why)),
            Some(Fault::Other(why)) => Err(EngineError::Validation { what: what.to_owned(), why }),
            Some(Fault::Lost(_)) | None => Ok(()),
        }
    }

    /// Keeps an error that could not be returned, for the next look.
    pub(crate) fn keep(&self, error: &EngineError) {
        if !matches!(error, EngineError::Lost(_)) {
            store(&self.fault, Fault::Other(error.to_string()));
        }
    }

    /// Calls `f` and turns every error that wgpu reports meanwhile, on this thread, into ours.
    pub(crate) fn guarded<T>(&self, what: &str, f: impl FnOnce() -> T) -> Result<T, EngineError> {
        self.check(what)?;
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = f();
        let validation = pollster::block_on(validation.pop());
        let memory = pollster::block_on(memory.pop());
        let internal = pollster::block_on(internal.pop());
        self.check(what)?;
        if let Some(error) = memory {
            return Err(self.out_of_memory(what, describe(&error)));
        }
        match validation.or(internal) {
            Some(error) => Err(EngineError::Validation { what: what.to_owned(), why: describe(&error) }),
            None => Ok(result),
        }
    }

    /// Waits until the device has done a submission, or all of them.
    pub(crate) fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), EngineError> {
        self.check("waiting for the device")?;
        let poll = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        // wgpu 30 panics when the device is lost during a wait, where it should return an error.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(poll)));
        self.check("waiting for the device")?;
        let why = match polled {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => one_line(&error.to_string()),
            Err(_) => "waiting for it failed".to_owned(),
        };
        store(&self.fault, Fault::Lost(why.clone())); // wgpu reports what is done to a lost device to nobody
        Err(EngineError::Lost(why))
    }

    fn out_of_memory(&self, what: &str, why: String) -> EngineError {
        EngineError::OutOfMemory { what: what.to_owned(), live: self.counter.live(), why }
    }
}

/// Keeps the first fault, which is the cause of those after it; but nothing is worse than a lost device.
fn store(fault: &Mutex<Option<Fault>>, new: Fault) {
    let mut fault = fault.lock().unwrap_or_else(PoisonError::into_inner);
    if fault.is_none() || matches!(new, Fault::Lost(_)) {
        *fault = Some(new);
    }
}

/// wgpu's description of an error with its causes, on one line.
fn describe(error: &wgpu::Error) -> String {
    let mut text = error.to_string();
    if let wgpu::Error::OutOfMemory { .. } = error {
        let mut cause = error.source();
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
    }
    one_line(&text)
}

#[cfg(test)]
#[allow(clippy::print_stderr)] // a skipped test must be seen
mod tests {
    use super::*;
    use crate::engine::Where;
    use crate::{DeviceChoice, Engine};
    use ratel_kernels::add::Add;
    use ratel_kernels::{Op, Role};
    use ratel_tensor::Elem;

    fn device() -> Option<(Engine, Arc<Gpu>)> {
        let engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it falls back to the twins");
        let Where::Device(gpu) = &engine.place else {
            eprintln!("SKIPPED for want of a device");
            return None;
        };
        let gpu = gpu.clone();
        Some((engine, gpu))
    }

    #[test]
    fn a_lost_device_is_an_error() {
        let Some((engine, gpu)) = device() else { return };
        let target = engine.target(Elem::F32, Elem::F32).expect("every device has f32");
        let buffer = || engine.buffer(Role::Activation, 4, &target);
        let (a, b, y) = (buffer().expect("a"), buffer().expect("b"), buffer().expect("y"));
        let op = Op::from(Add { count: 4, span: 4, period: 4 });
        engine.run_op(&op, None, &[&a, &b], &y).expect("it runs while the device is there");
        gpu.device.destroy();
        let lost = |result: Result<(), EngineError>| matches!(result, Err(EngineError::Lost(_)));
        assert!(lost(a.write_f32(&[1.0; 4])) || lost(engine.finish()), "writing or waiting");
        let error = engine.run_op(&op, None, &[&a, &b], &y);
        assert!(matches!(error, Err(EngineError::Lost(_))), "running: {error:?}");
        assert!(lost(y.read_f32().map(drop)), "reading");
        assert!(lost(buffer().map(drop)), "allocating");
    }

    #[test]
    fn too_much_memory_is_an_error() {
        let Some((engine, gpu)) = device() else { return };
        let limit = gpu.info.limits.buffer_bytes;
        let beyond = engine.allocate("slot", limit + 4).expect_err("beyond the limit").to_string();
        assert!(beyond.contains(&limit.to_string()), "{beyond}");
        assert_eq!(engine.memory().live, 0);
    }

    #[test]
    fn what_wgpu_reports_is_an_error() {
        let Some((engine, gpu)) = device() else { return };
        let misuse = || {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("misuse"),
                size: 4,
                usage,
                mapped_at_creation: false,
            })
        };
        let scoped = gpu.guarded("misuse", misuse).expect_err("no such usage");
        assert!(matches!(&scoped, EngineError::Validation { what, .. } if what == "misuse"), "{scoped}");
        assert!(!scoped.to_string().contains('\n'), "{scoped}");
        drop(misuse()); // outside of any scope: kept for the next call
        assert!(matches!(engine.allocate("slot", 4), Err(EngineError::Validation { .. })));
        assert!(engine.allocate("slot", 4).is_ok(), "and then forgotten");
    }
}
