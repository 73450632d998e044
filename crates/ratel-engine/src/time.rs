//! How long one op takes: warmed up, repeated, on the device's clock where it has one.

use crate::buffer::Region;
use crate::dispatch::Dispatch;
use crate::engine::Where;
use crate::gpu::Gpu;
use crate::{Engine, EngineError, cpu};
use ratel_kernels::{Choice, Op, Target};
use std::time::{Duration, Instant};

/// Repeated measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// Half the distance between the first and the third quartile, as a share of the median.
    pub spread: f64,
    /// How many there were.
    pub runs: usize,
}

impl Summary {
    /// Of measurements in any order; zeros for none.
    pub fn of(measurements: &[f64]) -> Summary {
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (sorted.get(place.floor() as usize), sorted.get(place.ceil() as usize));
            below.zip(above).map_or(0.0, |(below, above)| below + (above - below) * place.fract())
        };
        let median = at(0.5);
        let spread = if median > 0.0 { (at(0.75) - at(0.25)) / 2.0 / median } else { 0.0 };
        Summary { median, spread, runs: sorted.len() }
    }
}

/// How long one op takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Seconds of one dispatch.
    pub seconds: Summary,
    /// Whether the device's own clock was read. Otherwise the host's, around many dispatches.
    pub device_clock: bool,
}

/// Seconds that are measured in one piece at least: far more than a clock's step, or than a submission on the host.
const PIECE: f64 = 1e-3;
const PIECE_ON_HOST: f64 = 2e-2;
/// The most dispatches in a piece, and pieces in a measurement.
const REPEATS: f64 = 2000.0;
const RUNS: f64 = 50.0;

impl Engine {
    /// Runs an op again and again for some `budget`, once at least after it was warmed up.
    pub(crate) fn time(
        &self,
        op: &Op,
        choice: Option<&Choice>,
        target: &Target,
        regions: &[Region],
        budget: Duration,
    ) -> Result<Timing, EngineError> {
        let gpu = match &self.place {
            Where::Device(gpu) => gpu,
            Where::Twins(_) => {
                let piece = |repeats: usize| {
                    self.check_stop()?;
                    let start = Instant::now();
                    (0..repeats).try_for_each(|_| cpu::run(op, target, regions))?;
                    Ok(start.elapsed().as_secs_f64())
                };
                return Ok(Timing { seconds: repeat(PIECE, budget, piece)?, device_clock: false });
            }
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
        if gpu.info.timestamps {
            let clock = DeviceClock::new(gpu)?;
            let seconds = repeat(PIECE, budget, |repeats| {
                self.check_stop()?;
                clock.time(gpu, &dispatch, repeats)
            })?;
            // a clock that stands still is none
            if seconds.median > 0.0 {
                return Ok(Timing { seconds, device_clock: true });
            }
        }
        let piece = |repeats| {
            self.check_stop()?;
            let start = Instant::now();
            let submission = gpu.guarded("timing", || {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                (0..repeats).for_each(|_| dispatch.record(&mut pass));
                drop(pass);
                gpu.queue.submit([encoder.finish()])
            })?;
            gpu.wait(Some(submission))?;
            Ok(start.elapsed().as_secs_f64())
        };
        Ok(Timing { seconds: repeat(PIECE_ON_HOST, budget, piece)?, device_clock: false })
    }
}

/// Seconds of one repetition of `piece`, which does so many and returns the seconds of them all.
fn repeat(
    least: f64,
    budget: Duration,
    mut piece: impl FnMut(usize) -> Result<f64, EngineError>,
) -> Result<Summary, EngineError> {
    piece(1)?; // compiles, on drivers that compile at first use
    let start = Instant::now();
    let once = piece(1)?.max(1e-9);
    let on_host = start.elapsed().as_secs_f64();
    let repeats = (least / once).ceil().clamp(1.0, REPEATS);
    let runs = (budget.as_secs_f64() / (repeats * once).max(on_host)).floor().clamp(1.0, RUNS);
    if repeats * once > budget.as_secs_f64() {
        return Ok(Summary::of(&[once])); // the run that was to say how long one takes is all there is time for
    }
    let times: Result<Vec<f64>, EngineError> =
        (0..runs as usize).map(|_| Ok(piece(repeats as usize)? / repeats)).collect();
    Ok(Summary::of(&times?))
}

/// Two timestamps, before and after a pass.
struct DeviceClock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

impl DeviceClock {
    fn new(gpu: &Gpu) -> Result<DeviceClock, EngineError> {
        let (queries, resolved) = gpu.guarded("timing", || {
            let label = Some("timing");
            let ty = wgpu::QueryType::Timestamp;
            let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count: 2 });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let buffer = wgpu::BufferDescriptor { label, size: 16, usage, mapped_at_creation: false };
            (queries, gpu.device.create_buffer(&buffer))
        })?;
        Ok(DeviceClock { queries, resolved, period: f64::from(gpu.queue.get_timestamp_period()) * 1e-9 })
    }

    /// Seconds that so many repetitions take, one after the other.
    fn time(&self, gpu: &Gpu, dispatch: &Dispatch, repeats: usize) -> Result<f64, EngineError> {
        gpu.guarded("timing", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            (0..repeats).for_each(|_| dispatch.record(&mut pass));
            drop(pass);
            encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
            gpu.queue.submit([encoder.finish()]);
        })?;
        let mut bytes = Vec::new();
        gpu.fetch(&self.resolved, 0, 16, &mut bytes)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_the_middle_and_the_quartiles() {
        assert_eq!(Summary::of(&[]), Summary { median: 0.0, spread: 0.0, runs: 0 });
        assert_eq!(Summary::of(&[3.0]), Summary { median: 3.0, spread: 0.0, runs: 1 });
        assert_eq!(Summary::of(&[4.0, 1.0]), Summary { median: 2.5, spread: 0.3, runs: 2 });
        assert_eq!(Summary::of(&[9.0, 1.0, 2.0, 3.0, 2.0]), Summary { median: 2.0, spread: 0.25, runs: 5 });
    }

    #[test]
    fn repeats_as_the_budget_allows() {
        let run = |seconds: f64, budget: u64| {
            let mut done = Vec::new();
            let summary = repeat(1e-3, Duration::from_millis(budget), |repeats| {
                done.push(repeats);
                Ok(seconds * repeats as f64)
            });
            (summary.expect("no piece fails"), done)
        };
        let (short, pieces) = run(1e-5, 10);
        assert_eq!((short.runs, pieces.as_slice()), (10, &[&[1, 1][..], &[100; 10]].concat()[..]));
        assert!((short.median - 1e-5).abs() < 1e-12);
        let (long, pieces) = run(5.0, 10);
        assert_eq!((long.runs, long.median, pieces), (1, 5.0, vec![1, 1]), "nothing is done twice that takes seconds");
        let (instant, pieces) = run(0.0, 10);
        assert_eq!((instant.median, pieces[2]), (0.0, REPEATS as usize));
    }
}
