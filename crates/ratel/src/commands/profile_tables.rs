//! A profile and a comparison of two, as text.

use crate::units::{percent, seconds, si};
use ratel_engine::Roof;
use ratel_profile::{
    Bound, Change, Clock, Diff, Grouping, Profile, Row, Samples, Side, Summary, Verdict, rows, summary,
};

/// Rows of a table unless something else is asked for.
pub(super) const ROWS: usize = 15;

/// Characters of the column of names at least.
const LEAST_WIDTH: usize = 24;

/// A grouping in a word.
pub(super) fn name(grouping: Grouping) -> &'static str {
    match grouping {
        Grouping::Module => "module",
        Grouping::Kernel => "kernel",
        Grouping::Shape => "shape",
    }
}

/// Prints how it was timed, the tables, and what they come to.
pub(super) fn print(profile: &Profile, groupings: &[Grouping], top: usize) {
    let run = &profile.run;
    let runs = match profile.runs() {
        1 => "one run".to_owned(),
        runs => format!("medians of {runs} runs"),
    };
    let clock = match run.clock {
        Clock::Device => "timed by the device's clock",
        Clock::Host => "the device has no timestamps: timed by the host one by one, each too long by its submission",
        Clock::Twins => "CPU twins, timed by the host",
    };
    println!("{}; {clock}; {runs}", run.precision);
    let [from, to] = run.recorded_steps;
    if [from, to] != [0, run.steps] {
        println!("only the steps {from}..{to} are recorded, and what belongs to no step");
    }
    if let Some(roof) = &run.roof {
        println!("{}", roof_line(roof));
    }
    for grouping in groupings {
        println!();
        print_rows(&rows(profile, *grouping), *grouping, top);
    }
    println!();
    print_summary(profile, &summary(profile));
}

fn roof_line(roof: &Roof) -> String {
    let mut parts = vec![format!("f32 {}", si(roof.f32_flops, "FLOP/s"))];
    parts.extend(roof.f16_flops.map(|flops| format!("f16 {}", si(flops, "FLOP/s"))));
    parts.extend(roof.matrix_flops.map(|flops| format!("matrices {}", si(flops, "FLOP/s"))));
    parts.push(format!("copy {}", si(roof.copy_bytes, "B/s")));
    parts.push(format!("empty dispatch {}", seconds(roof.dispatch_seconds)));
    format!("roof: {}", parts.join(", "))
}

fn print_rows(rows: &[Row], grouping: Grouping, top: usize) {
    let tera = rows.iter().any(|row| row.flops_per_second >= 1e12);
    let (unit, scale) = if tera { ("TFLOP/s", 1e12) } else { ("GFLOP/s", 1e9) };
    let roof = rows.iter().any(|row| row.roof_ns.is_some());
    let title = format!("by {}", name(grouping));
    let shown = &rows[..rows.len().min(top)];
    let width = shown.iter().map(|row| row.name.len()).max().unwrap_or(0).max(LEAST_WIDTH);
    let head = format!("{title:<width$} {:>10} {:>6} {:>6} {unit:>8} {:>8}", "ms", "share", "count", "GB/s");
    println!("{head}{}", if roof { format!(" {:>6}  bound by", "roof") } else { String::new() });
    for row in shown {
        let roof =
            row.roof_share.map_or(String::new(), |share| format!(" {:>6}  {}", percent(share), bound(row.bound)));
        println!(
            "{:<width$} {:>10.3} {:>6} {:>6} {:>8.2} {:>8.2}{roof}",
            row.name,
            row.ns.median / 1e6,
            percent(row.share),
            row.dispatches,
            row.flops_per_second / scale,
            row.bytes_per_second / 1e9,
        );
    }
    if let Some(rest) = rows.get(top..).filter(|rest| !rest.is_empty()) {
        let sum = |of: &dyn Fn(&Row) -> f64| rest.iter().map(of).sum::<f64>();
        let (ms, share) = (sum(&|row| row.ns.median) / 1e6, percent(sum(&|row| row.share)));
        let count: usize = rest.iter().map(|row| row.dispatches).sum();
        println!("{:<width$} {ms:>10.3} {share:>6} {count:>6}", format!("{} more", rest.len()));
    }
    let beyond =
        |what| rows.iter().any(|row| row.bound == Some(what) && row.roof_share.is_some_and(|share| share > 1.0));
    if beyond(Bound::Memory) {
        println!(
            "more than 100% of the roof: the data came from a cache, which is faster than the memory that was measured"
        );
    }
    if beyond(Bound::Compute) {
        println!(
            "more than 100% of the roof: it was measured while the device was busy; `ratel roofline --fresh` measures it anew"
        );
    }
}

fn bound(bound: Option<Bound>) -> &'static str {
    bound.map_or("", Bound::name)
}

fn print_summary(profile: &Profile, summary: &Summary) {
    println!("{:<14} {:>12} {:>12} {:>10} {:>10}", "stage", "wall ms", "device ms", "dispatches", "GFLOP");
    for stage in &summary.stages {
        let (wall, device) = (stage.wall_ns.median / 1e6, stage.device_ns.median / 1e6);
        println!(
            "{:<14} {wall:>12.1} {device:>12.1} {:>10} {:>10.2}",
            stage.stage,
            stage.dispatches,
            stage.flops / 1e9
        );
    }
    let wall = summary.wall_ns.median;
    println!();
    println!("wall time    {} without the loading of weights, which took {}", time(wall), time(summary.loading_ns));
    println!(
        "device time  {} in {} dispatches, one after the other",
        time(summary.device_ns.median),
        summary.dispatches
    );
    let idle = summary.idle_ns / (summary.idle_ns + summary.busy_ns).max(1.0);
    match profile.run.clock {
        Clock::Host => println!("idle         not known: the host waited for each dispatch"),
        _ => println!(
            "idle         {} ({}) in which no dispatch was running and the device waited for the host",
            time(summary.idle_ns),
            percent(idle)
        ),
    }
    if let Some(host) = &summary.host {
        println!(
            "CPU time     {} a step, {} for each of its {} dispatches: recording and submitting, on one thread",
            time(host.step_ns.median),
            time(host.dispatch_ns),
            host.dispatches
        );
    }
    if let Some(ns) = profile.run.first_step_ns {
        println!("first step   done {} after the first run began: weights loaded, pipelines built", time(ns as f64));
    }
    let used = profile.dispatches.iter().filter_map(|dispatch| dispatch.used_bytes).max().unwrap_or(0);
    println!(
        "peak memory  {} held, {} the most that a step had in use",
        mebibytes(summary.peak_bytes),
        mebibytes(used)
    );
    match &summary.cost {
        Some(cost) => {
            let noise = match cost.share.count {
                1 => "one run of each, so noise is not known".to_owned(),
                pairs => format!(
                    "{:+.1}% to {:+.1}% in {pairs} pairs of runs, the timed one longer in {}",
                    cost.share.low * 100.0,
                    cost.share.high * 100.0,
                    cost.longer
                ),
            };
            println!(
                "profiling    {:+.1}%: {} timed, {} with no dispatch timed ({noise})",
                cost.share.median * 100.0,
                time(cost.timed_ns.median),
                time(cost.plain_ns.median),
            );
        }
        None => println!(
            "profiling    what it cost was not measured (--once), and first uses of kernels may hold their compilation"
        ),
    }
    if !summary.gains.is_empty() {
        println!();
        println!("to be gained at most, were the kernel at its roof:");
        for gain in summary.gains.iter().take(3) {
            println!(
                "  {:<32} {} of {} ({} of the wall time), bound by {}",
                gain.kernel,
                time(gain.gain_ns),
                time(gain.ns),
                percent(gain.share_of_wall),
                bound(gain.bound)
            );
        }
    }
}

fn time(ns: f64) -> String {
    seconds(ns * 1e-9)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Prints two profiles beside each other.
pub(super) fn print_diff(diff: &Diff, top: usize) {
    for line in &diff.settings {
        println!("{line}");
    }
    let [a, b] = diff.runs;
    println!("{a} {} against {b}", if a == 1 { "run" } else { "runs" });
    for (title, changes) in [("by kernel", &diff.kernels), ("by module", &diff.modules)] {
        println!();
        let width = names(changes.iter().take(top));
        println!(
            "{title:<width$} {:>10} {:>7} {:>10} {:>7} {:>10} {:>7}",
            "A ms", "noise", "B ms", "noise", "B-A ms", "B/A"
        );
        for change in changes.iter().take(top) {
            print_change(change, width);
        }
        if changes.len() > top {
            println!("{} more with smaller differences", changes.len() - top);
        }
    }
    println!();
    let whole: Vec<&Change> = std::iter::once(&diff.device).chain(&diff.wall).collect();
    let width = names(whole.iter().copied());
    whole.iter().for_each(|change| print_change(change, width));
    println!();
    if diff.device.verdict == Verdict::Unknown {
        println!("noise is known from three runs on: profile both with --repeat 3 or more");
    } else {
        println!(
            "faster, slower: every run of one is beyond every run of the other; by chance alone {} of the rows would be",
            percent(diff.chance)
        );
    }
}

/// Characters of the longest name.
fn names<'a>(changes: impl Iterator<Item = &'a Change>) -> usize {
    changes.map(|change| change.name.len()).max().unwrap_or(0).max(LEAST_WIDTH)
}

fn print_change(change: &Change, width: usize) {
    let side = |side: &Option<Side>| match side {
        Some(Side { ns, .. }) => format!("{:>10.3} {:>7}", ns.median / 1e6, noise(ns)),
        None => format!("{:>10} {:>7}", "-", ""),
    };
    let ratio = change.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    let verdict = match change.verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Noise => "within noise",
        Verdict::Unknown => "",
        Verdict::New => "only in B",
        Verdict::Gone => "only in A",
    };
    let other = match (&change.a, &change.b) {
        (Some(a), Some(b)) if a.kernels != b.kernels => {
            format!("  {} -> {}", a.kernels.join(", "), b.kernels.join(", "))
        }
        _ => String::new(),
    };
    let line = format!(
        "{:<width$} {} {} {:>+10.3} {ratio:>7}  {verdict}{other}",
        change.name,
        side(&change.a),
        side(&change.b),
        change.difference_ns() / 1e6
    );
    println!("{}", line.trim_end());
}

/// Half the range of repeated runs around their median.
fn noise(ns: &Samples) -> String {
    if ns.count > 1 { format!("±{}", percent(ns.spread() / 2.0)) } else { String::new() }
}
