//! One page that needs nothing else: the template of `page/` with the numbers in it.

use crate::{Grouping, Profile, rows, summary};
use serde_json::json;
use std::io::Write;

const PAGE: &str = include_str!("../../page/page.html");
const STYLE: &str = include_str!("../../page/page.css");
const SCRIPT: &str = include_str!("../../page/page.js");

/// Points of the memory chart at most.
const POINTS: usize = 2000;

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
    let groups: serde_json::Map<String, serde_json::Value> = Grouping::ALL
        .into_iter()
        .map(|grouping| (format!("{grouping:?}").to_lowercase(), json!(rows(profile, grouping))))
        .collect();
    let data = json!({
        "run": profile.run,
        "runs": profile.runs(),
        "summary": summary(profile),
        "rows": groups,
        "spans": profile.spans.iter().map(|s| json!([s.stage, s.step, s.begin_ns, s.ns.first()])).collect::<Vec<_>>(),
        "memory": memory(profile),
    });
    // no text in the data may end the element that holds it
    let data = data.to_string().replace('<', "\\u003c");
    let fill = [("/*STYLE*/", STYLE), ("/*DATA*/", &data), ("/*SCRIPT*/", SCRIPT)];
    let mut rest = PAGE;
    for (mark, text) in fill {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out.write_all(before.as_bytes())?;
        out.write_all(text.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

/// When, how much was held, and how much of it was in use: of runs of dispatches the greatest, at most [`POINTS`].
fn memory(profile: &Profile) -> Vec<(u64, u64, Option<u64>)> {
    let run = profile.dispatches.len().div_ceil(POINTS).max(1);
    let points = profile.dispatches.chunks(run).map(|chunk| {
        let held = chunk.iter().map(|dispatch| dispatch.held_bytes).max().unwrap_or(0);
        let used = chunk.iter().filter_map(|dispatch| dispatch.used_bytes).max();
        (chunk[0].begin_ns, held, used)
    });
    points.collect()
}
