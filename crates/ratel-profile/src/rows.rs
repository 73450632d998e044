//! Sums over dispatches that belong together.

use crate::{Bound, Dispatch, Limit, Profile, Samples};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What dispatches are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// The module, over all steps.
    Module,
    /// The kernel, in all its variants.
    Kernel,
    /// The kernel and the sizes it ran on.
    Shape,
}

impl Grouping {
    /// All of them.
    pub const ALL: [Grouping; 3] = [Grouping::Module, Grouping::Kernel, Grouping::Shape];

    /// The group of a dispatch.
    pub fn name(self, dispatch: &Dispatch) -> String {
        match self {
            Grouping::Module => dispatch.module.clone(),
            Grouping::Kernel => dispatch.kernel.clone(),
            Grouping::Shape => format!("{} {}", dispatch.kernel, dispatch.shape),
        }
    }
}

/// Dispatches that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What they share.
    pub name: String,
    /// The kernels that did them.
    pub kernels: Vec<String>,
    /// The kernels' WGSL files; none for CPU twins.
    pub files: Vec<String>,
    /// How many there are.
    pub dispatches: usize,
    /// Nanoseconds in a run, all together.
    pub ns: Samples,
    /// Of the time of all dispatches, 0 to 1.
    pub share: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that must be moved.
    pub bytes: f64,
    /// Floating-point operations a second.
    pub flops_per_second: f64,
    /// Bytes a second, of those that must be moved.
    pub bytes_per_second: f64,
    /// Nanoseconds at the roof, where one is known.
    pub roof_ns: Option<f64>,
    /// The share of the attainable roof min(F, I B) that was reached; more than 1 where data came from a cache.
    pub roof_share: Option<f64>,
    /// Nanoseconds between the time taken and the time at the roof: what a better kernel could gain at most.
    pub gain_ns: Option<f64>,
    /// What binds for most of the time, where a roof is known.
    pub bound: Option<Bound>,
}

fn per_second(what: f64, ns: f64) -> f64 {
    if ns > 0.0 { what / ns * 1e9 } else { 0.0 }
}

/// The dispatches of a profile summed up, the longest first.
pub fn rows(profile: &Profile, grouping: Grouping) -> Vec<Row> {
    let mut groups: BTreeMap<String, Vec<&Dispatch>> = BTreeMap::new();
    for dispatch in &profile.dispatches {
        groups.entry(grouping.name(dispatch)).or_default().push(dispatch);
    }
    let total = Samples::of_sums(profile.dispatches.iter().map(|dispatch| &dispatch.ns[..])).median;
    let mut rows: Vec<Row> =
        groups.into_iter().map(|(name, dispatches)| row(name, &dispatches, total, profile)).collect();
    rows.sort_by(|a, b| b.ns.median.total_cmp(&a.ns.median).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn row(name: String, dispatches: &[&Dispatch], total: f64, profile: &Profile) -> Row {
    let ns = Samples::of_sums(dispatches.iter().map(|dispatch| &dispatch.ns[..]));
    let distinct = |of: &dyn Fn(&Dispatch) -> Option<String>| -> Vec<String> {
        dispatches.iter().filter_map(|dispatch| of(dispatch)).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let mut at_roof = profile.run.roof.as_ref().map(|_| 0.0);
    let mut bound_for: BTreeMap<Bound, f64> = BTreeMap::new();
    if let Some(roof) = &profile.run.roof {
        for dispatch in dispatches {
            let limit = Limit::of(roof, dispatch.flops, dispatch.bytes, dispatch.unit);
            at_roof = at_roof.map(|sum| sum + limit.ns);
            *bound_for.entry(limit.bound).or_default() += dispatch.ns.first().map_or(0.0, |ns| *ns as f64);
        }
    }
    let (flops, bytes) = sums(dispatches);
    Row {
        name,
        kernels: distinct(&|dispatch| Some(dispatch.kernel.clone())),
        files: distinct(&|dispatch| dispatch.file.clone()),
        dispatches: dispatches.len(),
        ns,
        share: if total > 0.0 { ns.median / total } else { 0.0 },
        flops,
        bytes,
        flops_per_second: per_second(flops, ns.median),
        bytes_per_second: per_second(bytes, ns.median),
        roof_ns: at_roof,
        roof_share: at_roof.filter(|_| ns.median > 0.0).map(|roof| roof / ns.median),
        gain_ns: at_roof.map(|roof| (ns.median - roof).max(0.0)),
        bound: bound_for.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(bound, _)| bound),
    }
}

/// Operations and bytes of dispatches.
fn sums(dispatches: &[&Dispatch]) -> (f64, f64) {
    (dispatches.iter().map(|dispatch| dispatch.flops).sum(), dispatches.iter().map(|dispatch| dispatch.bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn dispatches_are_summed_up() {
        let profile = example::profile();
        let kernels = rows(&profile, Grouping::Kernel);
        let names: Vec<_> = kernels.iter().map(|row| (row.name.as_str(), row.dispatches)).collect();
        assert_eq!(names, [("conv2d_tiled", 2), ("group_norm", 2), ("combine", 2)], "the longest first");
        let conv = &kernels[0];
        assert_eq!(conv.ns, Samples { count: 3, median: 4.2e6, low: 4.0e6, high: 4.4e6 });
        assert_eq!((conv.flops, conv.bytes), (2e9, 2e7));
        assert!((conv.flops_per_second - 2e9 / 4.2e-3).abs() < 1.0 && (conv.share - 4.2 / 6.6).abs() < 1e-9);
        assert_eq!((conv.roof_ns, conv.bound), (Some(2e6), Some(Bound::Compute)));
        assert!((conv.roof_share.expect("a roof") - 2.0 / 4.2).abs() < 1e-9);
        assert!((conv.gain_ns.expect("a roof") - 2.2e6).abs() < 1e-3);
        let bounds: Vec<_> = kernels.iter().map(|row| row.bound).collect();
        assert_eq!(bounds, [Some(Bound::Compute), Some(Bound::Memory), Some(Bound::Launch)]);
        for grouping in Grouping::ALL {
            let all = rows(&profile, grouping);
            assert!((all.iter().map(|row| row.share).sum::<f64>() - 1.0).abs() < 1e-9, "{grouping:?}");
            assert_eq!(all.iter().map(|row| row.dispatches).sum::<usize>(), profile.dispatches.len());
        }
        assert_eq!(rows(&profile, Grouping::Module)[0].name, "unet.down_blocks.0.resnets.0.conv1");
        assert_eq!(rows(&profile, Grouping::Shape)[0].name, "conv2d_tiled 1x8x8x32 3x3 -> 32");
    }

    #[test]
    fn without_a_roof_there_is_no_share_of_it() {
        let mut profile = example::profile();
        profile.run.roof = None;
        for row in rows(&profile, Grouping::Kernel) {
            assert_eq!((row.roof_ns, row.roof_share, row.gain_ns, row.bound), (None, None, None, None));
        }
    }
}
