//! Where the time of a run went, and what could be gained.

use crate::samples::sums;
use crate::{Bound, Clock, Grouping, Profile, Samples, rows};
use serde::Serialize;
use std::collections::BTreeSet;

/// A run in a few numbers. Times are of the recorded spans without the loading of weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Nanoseconds of the host's clock.
    pub wall_ns: Samples,
    /// Nanoseconds of all dispatches, one after the other.
    pub device_ns: Samples,
    /// Nanoseconds of the first run in which at least one dispatch was running.
    pub busy_ns: f64,
    /// Nanoseconds of the first run in which none was: the device waited for the host.
    pub idle_ns: f64,
    /// Nanoseconds of the first run in which weights were loaded.
    pub loading_ns: f64,
    /// The most that the engine held at a time, in bytes.
    pub peak_bytes: u64,
    /// Dispatches in a run.
    pub dispatches: usize,
    /// Floating-point operations of a run.
    pub flops: f64,
    /// Bytes that a run must move.
    pub bytes: f64,
    /// Each stage, in the order of the run.
    pub stages: Vec<StageSummary>,
    /// What a step of the sampler costs the host, where a device does the work.
    pub host: Option<HostCost>,
    /// What profiling cost, where runs without it were measured beside.
    pub cost: Option<Cost>,
    /// Kernels by what a better one could gain at most; empty where no roof is known.
    pub gains: Vec<Gain>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageSummary {
    /// Its name.
    pub stage: String,
    /// Nanoseconds of the host's clock. What is given to the device in one stage may run in the next.
    pub wall_ns: Samples,
    /// Nanoseconds of its dispatches.
    pub device_ns: Samples,
    /// Dispatches.
    pub dispatches: usize,
    /// Floating-point operations.
    pub flops: f64,
}

/// What a step of the sampler costs the host's thread, which records and submits it: waiting does not count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HostCost {
    /// Nanoseconds of a step.
    pub step_ns: Samples,
    /// Dispatches of a step.
    pub dispatches: usize,
    /// Nanoseconds for each of them.
    pub dispatch_ns: f64,
}

impl HostCost {
    fn of(profile: &Profile) -> Option<HostCost> {
        let of_steps = || profile.spans.iter().filter(|span| span.step.is_some());
        let steps = of_steps().filter_map(|span| span.step).collect::<BTreeSet<_>>().len();
        let dispatches = profile.dispatches.iter().filter(|dispatch| dispatch.step.is_some()).count();
        // the twins compute on that thread
        if profile.run.clock == Clock::Twins || steps == 0 || dispatches == 0 {
            return None;
        }
        let cpu = sums(of_steps().map(|span| &span.cpu_ns[..]));
        let step_ns = Samples::of(cpu.into_iter().map(|ns| ns / steps as f64).collect());
        let dispatches = dispatches / steps;
        (step_ns.count > 0).then(|| HostCost {
            step_ns,
            dispatches,
            dispatch_ns: step_ns.median / dispatches.max(1) as f64,
        })
    }
}

/// What profiling cost: the same run with and without timestamps, in pairs one right after the other, so that what slowly
/// changes on a machine changes both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Of each pair, how much longer the timed run took, as a share of the plain one.
    pub share: Samples,
    /// Pairs in which it took longer at all: about half of them where profiling costs nothing that can be told from noise.
    pub longer: usize,
    /// Nanoseconds of a run in which dispatches were timed.
    pub timed_ns: Samples,
    /// Nanoseconds of a run in which they were not.
    pub plain_ns: Samples,
}

impl Cost {
    fn of(timed: Vec<f64>, plain: Vec<f64>) -> Option<Cost> {
        let shares: Vec<f64> = timed
            .iter()
            .zip(&plain)
            .filter(|(_, plain)| **plain > 0.0)
            .map(|(timed, plain)| timed / plain - 1.0)
            .collect();
        let (timed_ns, plain_ns) = (Samples::of(timed), Samples::of(plain));
        let longer = shares.iter().filter(|share| **share > 0.0).count();
        (!shares.is_empty()).then(|| Cost { share: Samples::of(shares), longer, timed_ns, plain_ns })
    }
}

/// What a better kernel could gain at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The kernel.
    pub kernel: String,
    /// Nanoseconds that its dispatches take in a run.
    pub ns: f64,
    /// Nanoseconds that they would take at the roof.
    pub roof_ns: f64,
    /// The difference.
    pub gain_ns: f64,
    /// The difference as a share of the run's wall time.
    pub share_of_wall: f64,
    /// What binds for most of the time.
    pub bound: Option<Bound>,
}

/// The name of the stage in which weights go to the device.
const LOADING: &str = "loading";

/// Sums a profile up.
pub fn summary(profile: &Profile) -> Summary {
    let working = || profile.spans.iter().filter(|span| span.stage != LOADING);
    let wall_ns = Samples::of_sums(working().map(|span| &span.ns[..]));
    let cost = Cost::of(sums(working().map(|span| &span.ns[..])), sums(working().map(|span| &span.plain_ns[..])));
    let device_ns = Samples::of_sums(profile.dispatches.iter().map(|dispatch| &dispatch.ns[..]));
    let first = |samples: &[u64]| samples.first().map_or(0.0, |ns| *ns as f64);
    let busy_ns = busy(profile);
    let first_wall: f64 = working().map(|span| first(&span.ns)).sum();

    let mut stages: Vec<StageSummary> = Vec::new();
    for span in working() {
        if !stages.iter().any(|known| known.stage == span.stage) {
            stages.push(stage(profile, &span.stage));
        }
    }
    let mut gains: Vec<Gain> = rows(profile, Grouping::Kernel)
        .into_iter()
        .filter_map(|row| {
            let gain_ns = row.gain_ns?;
            let share_of_wall = if wall_ns.median > 0.0 { gain_ns / wall_ns.median } else { 0.0 };
            let (ns, roof_ns, bound) = (row.ns.median, row.roof_ns?, row.bound);
            Some(Gain { kernel: row.name, ns, roof_ns, gain_ns, share_of_wall, bound })
        })
        .collect();
    gains.sort_by(|a, b| b.gain_ns.total_cmp(&a.gain_ns));
    Summary {
        wall_ns,
        device_ns,
        busy_ns,
        idle_ns: (first_wall - busy_ns).max(0.0),
        loading_ns: profile.spans.iter().filter(|span| span.stage == LOADING).map(|span| first(&span.ns)).sum(),
        peak_bytes: profile.run.peak_bytes,
        dispatches: profile.dispatches.len(),
        flops: profile.dispatches.iter().map(|dispatch| dispatch.flops).sum(),
        bytes: profile.dispatches.iter().map(|dispatch| dispatch.bytes).sum(),
        stages,
        host: HostCost::of(profile),
        cost,
        gains,
    }
}

fn stage(profile: &Profile, name: &str) -> StageSummary {
    let spans = profile.spans.iter().filter(|span| span.stage == name);
    let dispatches: Vec<_> = profile.dispatches.iter().filter(|dispatch| dispatch.stage == name).collect();
    StageSummary {
        stage: name.to_owned(),
        wall_ns: Samples::of_sums(spans.map(|span| &span.ns[..])),
        device_ns: Samples::of_sums(dispatches.iter().map(|dispatch| &dispatch.ns[..])),
        dispatches: dispatches.len(),
        flops: dispatches.iter().map(|dispatch| dispatch.flops).sum(),
    }
}

/// Nanoseconds of the first run in which at least one dispatch was running: a device may run several at once.
fn busy(profile: &Profile) -> f64 {
    let mut times: Vec<(u64, u64)> = profile
        .dispatches
        .iter()
        .map(|dispatch| {
            (dispatch.begin_ns, dispatch.begin_ns.saturating_add(dispatch.ns.first().copied().unwrap_or(0)))
        })
        .collect();
    times.sort_unstable();
    let (mut sum, mut until) = (0.0, 0);
    for (begin, end) in times {
        sum += end.saturating_sub(begin.max(until)) as f64;
        until = until.max(end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn where_the_time_went() {
        let summary = summary(&example::profile());
        assert_eq!(summary.wall_ns, Samples { count: 3, median: 10.2e6, low: 10.0e6, high: 10.4e6 });
        assert_eq!(summary.device_ns.median, 6.6e6);
        // of each step's dispatches, 3.2 ms one after the other, 0.1 ms ran at the same time
        assert_eq!((summary.busy_ns, summary.idle_ns, summary.loading_ns), (6.2e6, 3.8e6, 1e6));
        let stages: Vec<_> = summary.stages.iter().map(|s| (s.stage.as_str(), s.dispatches, s.wall_ns.low)).collect();
        assert_eq!(stages, [("unet", 4, 8e6), ("sampler", 2, 2e6)]);
        let cost = summary.cost.expect("plain runs were measured");
        assert!((cost.share.median - 1.0 / 9.0).abs() < 1e-9 && cost.longer == 3, "{cost:?}");
        assert_eq!((cost.share.count, cost.plain_ns.median), (3, 9.18e6));
        let host = summary.host.expect("a device did it");
        // of 4 and 1 ms in a step a twentieth, for three dispatches
        assert_eq!((host.step_ns.low, host.step_ns.count, host.dispatches), (250_000.0, 3, 3));
        assert!((host.dispatch_ns - host.step_ns.median / 3.0).abs() < 1e-9);
        let gains: Vec<_> = summary.gains.iter().map(|gain| (gain.kernel.as_str(), gain.gain_ns.round())).collect();
        assert_eq!(gains, [("conv2d_tiled", 2.2e6), ("group_norm", 1.5e6), ("combine", 399_980.0)]);
        assert!((summary.gains[0].share_of_wall - 2.2 / 10.2).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_is_not_there() {
        let mut profile = example::profile();
        profile.run.roof = None;
        profile.run.clock = Clock::Twins;
        profile.spans.iter_mut().for_each(|span| span.plain_ns.clear());
        let summary = summary(&profile);
        assert!(summary.cost.is_none() && summary.gains.is_empty() && summary.host.is_none());
    }
}
