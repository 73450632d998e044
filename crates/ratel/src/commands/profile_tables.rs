//! A profile and a comparison of two, as text.

use ratel_engine::Roof;
use ratel_profile::{
    Bound, Change, Clock, Diff, Grouping, Profile, Row, Samples, Side, Summary, Verdict, rows, summary,
};

/// Rows of a table unless something else is asked for.
pub(super) const ROWS: usize = 15;

/// A grouping in a word.
pub(super) fn name(grouping: Grouping) -> &'static str {
    match grouping {
        Grouping::Module => "module",
        Grouping::Kernel => "kernel",
        Grouping::Shape => "shape",
    }
}

/// Prints what was run, the tables, and what they come to.
pub(super) fn print(profile: &Profile, groupings: &[Grouping], top: usize) {
    let run = &profile.run;
    let runs = match profile.runs() {
        1 => "one run".to_owned(),
        runs => format!("medians of {runs} runs"),
    };
    println!("{}, {}x{}, {} steps of {} on {}", run.model, run.width, run.height, run.steps, run.sampler, run.device);
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
        println!("");
        print_rows(&rows(profile, *grouping), *grouping, top);
    }
    println!("");
    print_summary(profile, &summary(profile));
}

fn roof_line(roof: &Roof) -> String {
    let giga = |value: f64| format!("{:.1}", value / 1e9);
    let mut parts = vec![format!("f32 {} GFLOP/s", giga(roof.f32_flops))];
    parts.extend(roof.f16_flops.map(|flops| format!("f16 {} GFLOP/s", giga(flops))));
    parts.extend(roof.matrix_flops.map(|flops| format!("matrices {} GFLOP/s", giga(flops))));
    parts.push(format!("copy {} GB/s", giga(roof.copy_bytes)));
    parts.push(format!("empty dispatch {:.1} us", roof.dispatch_seconds * 1e6));
    format!("roof: {}", parts.join(", "))
}

fn print_rows(rows: &[Row], grouping: Grouping, top: usize) {
    let tera = rows.iter().any(|row| row.flops_per_second >= 1e12);
    let (unit, scale) = if tera { ("TFLOP/s", 1e12) } else { ("GFLOP/s", 1e9) };
    let roof = rows.iter().any(|row| row.roof_ns.is_some());
    let title = format!("by {}", name(grouping));
    let head = format!("{title:<64} {:>10} {:>6} {:>6} {unit:>8} {:>8}", "ms", "share", "count", "GB/s");
    println!("{head}{}", if roof { format!(" {:>6}  bound by", "roof") } else { String::new() });
    for row in rows.iter().take(top) {
        let roof =
            row.roof_share.map_or(String::new(), |share| format!(" {:>6}  {}", percent(share), bound(row.bound)));
        println!(
            "{:<64} {:>10.3} {:>6} {:>6} {:>8.2} {:>8.2}{roof}",
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
        println!("{:<64} {ms:>10.3} {share:>6} {count:>6}", format!("{} more", rest.len()));
    }
    if rows.iter().any(|row| row.roof_share.is_some_and(|share| share > 1.0)) {
        println!(
            "more than 100% of the roof: the data came from a cache, which is faster than the memory that was measured"
        );
    }
}

fn bound(bound: Option<Bound>) -> &'static str {
    bound.map_or("", Bound::name)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
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
    println!("");
    println!("wall time    {} without the loading of weights, which took {}", ms(wall), ms(summary.loading_ns));
    println!("device time  {} in {} dispatches, one after the other", ms(summary.device_ns.median), summary.dispatches);
    let idle = summary.idle_ns / (summary.idle_ns + summary.busy_ns).max(1.0);
    match profile.run.clock {
        Clock::Host => println!("idle         not known: the host waited for each dispatch"),
        _ => println!(
            "idle         {} ({}) in which no dispatch was running and the device waited for the host",
            ms(summary.idle_ns),
            percent(idle)
        ),
    }
    let used = profile.dispatches.iter().filter_map(|dispatch| dispatch.used_bytes).max().unwrap_or(0);
    println!(
        "peak memory  {} held, {} the most that a step had in use",
        mebibytes(summary.peak_bytes),
        mebibytes(used)
    );
    match &summary.cost {
        Some(cost) => {
            let noise = match (cost.plain_ns.count, cost.within_noise()) {
                (1, _) => "one run of each, so noise is not known".to_owned(),
                (n, true) => format!("medians of {n} runs of each, in turn; their ranges overlap: no more than noise"),
                (n, false) => format!("medians of {n} runs of each, in turn"),
            };
            println!(
                "profiling    {:+.1}%: {} timed, {} with no dispatch timed ({noise})",
                cost.share() * 100.0,
                ms(cost.timed_ns.median),
                ms(cost.plain_ns.median),
            );
        }
        None => println!("profiling    what it cost was not measured (--once)"),
    }
    if !summary.gains.is_empty() {
        println!("");
        println!("to be gained at most, were the kernel at its roof:");
        for gain in summary.gains.iter().take(3) {
            println!(
                "  {:<32} {} of {} ({} of the wall time), bound by {}",
                gain.kernel,
                ms(gain.gain_ns),
                ms(gain.ns),
                percent(gain.share_of_wall),
                bound(gain.bound)
            );
        }
    }
}

fn ms(ns: f64) -> String {
    format!("{:.1} ms", ns / 1e6)
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
        println!("");
        println!(
            "{title:<64} {:>10} {:>7} {:>10} {:>7} {:>10} {:>7}",
            "A ms", "noise", "B ms", "noise", "B-A ms", "B/A"
        );
        for change in changes.iter().take(top) {
            print_change(change);
        }
        if changes.len() > top {
            println!("{} more with smaller differences", changes.len() - top);
        }
    }
    println!("");
    print_change(&diff.device);
    print_change(&diff.wall);
    println!("");
    if diff.device.verdict == Verdict::Unknown {
        println!("noise is known from three runs on: profile both with --repeat 3 or more");
    } else {
        println!(
            "faster, slower: every run of one is beyond every run of the other; by chance alone {} of the rows would be",
            percent(diff.chance)
        );
    }
}

fn print_change(change: &Change) {
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
        "{:<64} {} {} {:>+10.3} {ratio:>7}  {verdict}{other}",
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
