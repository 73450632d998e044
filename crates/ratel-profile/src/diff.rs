//! Two profiles beside each other.

use crate::{Dispatch, Grouping, Profile, Samples};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every run of B took less than every run of A.
    Faster,
    /// Every run of B took more than every run of A.
    Slower,
    /// The runs overlap: no difference can be told from noise.
    Noise,
    /// Less than three runs on a side: their noise is not known.
    Unknown,
    /// It is in B only.
    New,
    /// It is in A only.
    Gone,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Nanoseconds in a run, all together.
    pub ns: Samples,
    /// How many dispatches there are.
    pub dispatches: usize,
    /// The kernels that did them; not listed of a whole run.
    pub kernels: Vec<String>,
}

/// A module or a kernel in both profiles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// In the first profile.
    pub a: Option<Side>,
    /// In the second.
    pub b: Option<Side>,
    /// Whether there is a difference.
    pub verdict: Verdict,
}

impl Change {
    /// Nanoseconds more in B than in A; what is missing counts as nothing.
    pub fn difference_ns(&self) -> f64 {
        let ns = |side: &Option<Side>| side.as_ref().map_or(0.0, |side| side.ns.median);
        ns(&self.b) - ns(&self.a)
    }

    /// B's time over A's, where it is in both.
    pub fn ratio(&self) -> Option<f64> {
        let (a, b) = (self.a.as_ref()?.ns.median, self.b.as_ref()?.ns.median);
        (a > 0.0).then(|| b / a)
    }
}

/// Two profiles beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// What else differs between the runs than what is measured, a line each.
    pub settings: Vec<String>,
    /// Runs of each.
    pub runs: [usize; 2],
    /// The chance that the runs of one and the same thing lie apart without overlap: what one row in so many would show
    /// if nothing had changed.
    pub chance: f64,
    /// Wall time without the loading of weights; no dispatches are counted in it. None where a profile has no spans.
    pub wall: Option<Change>,
    /// All dispatches together.
    pub device: Change,
    /// By kernel, the greatest difference first.
    pub kernels: Vec<Change>,
    /// By module, the greatest difference first.
    pub modules: Vec<Change>,
}

/// Runs on a side from which their range says something about noise.
const ENOUGH: usize = 3;

/// Compares `b` with `a`.
pub fn diff(a: &Profile, b: &Profile) -> Diff {
    let wall = |profile: &Profile| {
        let ns = crate::summary(profile).wall_ns;
        (ns.count > 0).then_some(Side { ns, dispatches: 0, kernels: vec![] })
    };
    let whole = |profile: &Profile| {
        let side = side(&profile.dispatches.iter().collect::<Vec<_>>())?;
        Some(Side { kernels: vec![], ..side })
    };
    Diff {
        settings: settings(a, b),
        runs: [a.runs(), b.runs()],
        chance: chance(a.runs(), b.runs()),
        wall: wall(a).zip(wall(b)).map(|(a, b)| change("wall".to_owned(), Some(a), Some(b))),
        device: change("device".to_owned(), whole(a), whole(b)),
        kernels: changes(a, b, Grouping::Kernel),
        modules: changes(a, b, Grouping::Module),
    }
}

fn changes(a: &Profile, b: &Profile, grouping: Grouping) -> Vec<Change> {
    let (a, b) = (sides(a, grouping), sides(b, grouping));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut changes: Vec<Change> =
        names.into_iter().map(|name| change(name.clone(), a.get(name).cloned(), b.get(name).cloned())).collect();
    changes.sort_by(|x, y| y.difference_ns().abs().total_cmp(&x.difference_ns().abs()).then(x.name.cmp(&y.name)));
    changes
}

fn sides(profile: &Profile, grouping: Grouping) -> BTreeMap<String, Side> {
    let mut groups: BTreeMap<String, Vec<&Dispatch>> = BTreeMap::new();
    for dispatch in &profile.dispatches {
        groups.entry(grouping.name(dispatch)).or_default().push(dispatch);
    }
    groups.into_iter().filter_map(|(name, dispatches)| Some((name, side(&dispatches)?))).collect()
}

fn side(dispatches: &[&Dispatch]) -> Option<Side> {
    let kernels: BTreeSet<&String> = dispatches.iter().map(|dispatch| &dispatch.kernel).collect();
    (!dispatches.is_empty()).then(|| Side {
        ns: Samples::of_sums(dispatches.iter().map(|dispatch| &dispatch.ns[..])),
        dispatches: dispatches.len(),
        kernels: kernels.into_iter().cloned().collect(),
    })
}

fn change(name: String, a: Option<Side>, b: Option<Side>) -> Change {
    let verdict = match (&a, &b) {
        (None, _) => Verdict::New,
        (_, None) => Verdict::Gone,
        (Some(a), Some(b)) if a.ns.count < ENOUGH || b.ns.count < ENOUGH => Verdict::Unknown,
        (Some(a), Some(b)) if b.ns.high < a.ns.low => Verdict::Faster,
        (Some(a), Some(b)) if b.ns.low > a.ns.high => Verdict::Slower,
        _ => Verdict::Noise,
    };
    Change { name, a, b, verdict }
}

/// The chance that `a` and `b` measurements of the same thing lie apart: two of the orders in which they can come, all of
/// which are equally likely (the extreme of the rank-sum test, Wilcoxon 1945).
fn chance(a: usize, b: usize) -> f64 {
    let orders: f64 = (1..=a).map(|i| (b + i) as f64 / i as f64).product();
    (2.0 / orders).min(1.0)
}

/// What else differs, a line each.
fn settings(a: &Profile, b: &Profile) -> Vec<String> {
    let (a, b) = (&a.run, &b.run);
    let facts = |run: &crate::Run| {
        [
            ("device", run.device.clone()),
            ("driver", run.driver.clone()),
            ("clock", format!("{:?}", run.clock).to_lowercase()),
            ("program", run.program.clone()),
            ("model", run.model.clone()),
            ("size", format!("{}x{}", run.width, run.height)),
            ("batch", run.batch.to_string()),
            ("sampler", run.sampler.clone()),
            ("steps", run.steps.to_string()),
            ("recorded steps", format!("{}..{}", run.recorded_steps[0], run.recorded_steps[1])),
            ("guidance", if run.cfg_scale > 1.0 { "on" } else { "off" }.to_owned()),
            ("precision", run.precision.clone()),
            ("fusion", run.rules.join(", ")),
        ]
    };
    let pairs = facts(a).into_iter().zip(facts(b)).filter(|((_, a), (_, b))| a != b);
    pairs.map(|((name, a), (_, b))| format!("{name}: {a} against {b}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn differences_are_told_from_noise() {
        let a = example::profile();
        let mut b = a.clone();
        b.run.steps = 4;
        for dispatch in &mut b.dispatches {
            match dispatch.kernel.as_str() {
                "conv2d_tiled" => {
                    dispatch.kernel = "conv2d_subgroup".to_owned();
                    dispatch.ns.iter_mut().for_each(|ns| *ns /= 2);
                }
                "group_norm" => dispatch.ns = vec![900_000, 1_100_000, 1_050_000],
                _ => dispatch.ns = vec![300_000; 3],
            }
        }
        let diff = diff(&a, &b);
        assert_eq!(diff.settings, ["steps: 2 against 4"]);
        assert!((diff.chance - 0.1).abs() < 1e-12, "two of the twenty orders of three and three");
        let verdicts = |changes: &[Change]| -> Vec<(String, Verdict)> {
            changes.iter().map(|change| (change.name.clone(), change.verdict)).collect()
        };
        let named = |name: &str, verdict| (name.to_owned(), verdict);
        assert_eq!(
            verdicts(&diff.modules),
            [
                named("unet.down_blocks.0.resnets.0.conv1", Verdict::Faster),
                named("sampler.combine", Verdict::Slower),
                named("unet.down_blocks.0.resnets.0.norm1", Verdict::Noise),
            ]
        );
        let conv = &diff.modules[0];
        assert_eq!((conv.difference_ns(), conv.ratio()), (-2.1e6, Some(0.5)));
        assert_eq!(conv.b.as_ref().map(|side| side.kernels.concat()), Some("conv2d_subgroup".to_owned()));
        let kernels = verdicts(&diff.kernels);
        assert!(kernels.contains(&named("conv2d_tiled", Verdict::Gone)), "{kernels:?}");
        assert!(kernels.contains(&named("conv2d_subgroup", Verdict::New)), "{kernels:?}");
        assert_eq!(diff.device.verdict, Verdict::Faster);
        assert_eq!(diff.wall.expect("both have spans").verdict, Verdict::Noise, "the spans are the same");
    }

    #[test]
    fn without_spans_there_is_no_wall_time() {
        let a = example::profile();
        let without = Profile { spans: vec![], ..a.clone() };
        for (a, b) in [(&a, &without), (&without, &a), (&without, &without)] {
            let diff = diff(a, b);
            assert_eq!(diff.wall, None, "it is not known, and not in one of them only");
            assert_eq!(diff.device.verdict, Verdict::Noise);
        }
    }

    #[test]
    fn noise_is_not_known_from_one_run() {
        let a = example::profile();
        let mut b = a.clone();
        b.dispatches.iter_mut().for_each(|dispatch| dispatch.ns = vec![1]);
        let diff = diff(&a, &b);
        assert!(diff.modules.iter().all(|change| change.verdict == Verdict::Unknown), "{:?}", diff.modules);
        assert_eq!(diff.runs, [3, 1]);
    }
}
