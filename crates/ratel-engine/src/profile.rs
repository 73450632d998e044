//! How long each step takes.

use crate::EngineError;
use crate::engine::Where;
use crate::gpu::Gpu;
use crate::session::{Hooks, Session};
use std::time::Instant;

/// Steps timed by one query set, which holds at most 4096 timestamps, two a step.
const STEPS: usize = 2048;

/// The time of each step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nanoseconds of each step, in the plan's order.
    pub nanoseconds: Vec<u64>,
    /// Whether the device's own clock was read. Otherwise the host's, around each step and its submission: too long by
    /// what a submission takes.
    pub device_clock: bool,
}

impl Session {
    /// Runs once, as [`Session::run`] does, and times each step. The first run of a session warms the device up: time a
    /// later one.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn profile(&self, hooks: &mut Hooks) -> Result<Profile, EngineError> {
        match &self.engine.place {
            Where::Device(gpu) if gpu.info.timestamps => self.timestamps(gpu, hooks),
            place => {
                let mut nanoseconds = Vec::with_capacity(self.plan().steps.len());
                for i in 0..self.plan().steps.len() {
                    hooks.check()?;
                    let start = Instant::now();
                    match place {
                        Where::Device(gpu) => gpu.wait(Some(self.submit(gpu, i..i + 1)?))?,
                        Where::Twins(_) => self.run_twin(i)?,
                    }
                    nanoseconds.push(start.elapsed().as_nanos() as u64);
                    hooks.tell(i + 1, self.plan().steps.len());
                }
                Ok(Profile { nanoseconds, device_clock: false })
            }
        }
    }

    fn timestamps(&self, gpu: &Gpu, hooks: &mut Hooks) -> Result<Profile, EngineError> {
        let total = self.plan().steps.len();
        let (queries, resolved) = gpu.guarded("profiling", || {
            let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * STEPS as u32,
            });
            let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: 2 * STEPS as u64 * 8,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (queries, resolved)
        })?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        let mut nanoseconds = Vec::with_capacity(total);
        for batch in self.batches(0..total, gpu.info.kind) {
            for part in batch.clone().step_by(STEPS).map(|start| start..(start + STEPS).min(batch.end)) {
                hooks.check()?;
                let count = 2 * part.len();
                gpu.guarded("profiling", || {
                    let mut encoder = gpu.device.create_command_encoder(&Default::default());
                    for (i, dispatch) in self.dispatches[part.clone()].iter().enumerate() {
                        let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                            query_set: &queries,
                            beginning_of_pass_write_index: Some(2 * i as u32),
                            end_of_pass_write_index: Some(2 * i as u32 + 1),
                        });
                        let pass = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                        dispatch.record(&mut encoder.begin_compute_pass(&pass));
                    }
                    encoder.resolve_query_set(&queries, 0..count as u32, &resolved, 0);
                    gpu.queue.submit([encoder.finish()]);
                })?;
                let mut bytes = Vec::new();
                gpu.fetch(&resolved, 0, 8 * count as u64, &mut bytes)?;
                let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
                nanoseconds.extend(ticks.chunks_exact(2).map(|t| (t[1].saturating_sub(t[0]) as f64 * period) as u64));
                hooks.tell(part.end, total);
            }
        }
        Ok(Profile { nanoseconds, device_clock: true })
    }
}
