use super::setup;
use crate::Failure;
use crate::args::SelftestArgs;
use ratel_engine::{Row, selftest};
use serde_json::json;
use std::collections::BTreeMap;

/// Compares every kernel with its twin.
pub(crate) fn run(args: SelftestArgs) -> Result<(), Failure> {
    let engine = setup::engine(&args.device, args.shaders.as_deref())?;
    if engine.device().is_none() {
        return Err(Failure::Usage("selftest compares a device with the CPU twins, and there is no device".to_owned()));
    }
    if !args.json {
        println!("{}", engine.name());
        println!("{:24} {:>5} {:>10} {:>10} {:>10}  {}", "kernel", "elem", "weights", "error", "allowed", "");
    }
    // a kernel and variant per line, over all its cases: the worst of each
    let mut lines: BTreeMap<(&'static str, String, String), Vec<Row>> = BTreeMap::new();
    let mut failed = 0;
    let mut total = 0;
    let only = args.only.unwrap_or_default();
    for row in selftest(&engine, &only) {
        total += 1;
        if !row.passed() {
            failed += 1;
            if !args.json {
                let why = match &row.result {
                    Ok(check) => format!(
                        "error {:.1e}, allowed {:.0e}, {} stray bytes",
                        check.nmse, check.tolerance, check.stray
                    ),
                    Err(error) => error.to_string(),
                };
                println!("FAILED {} ({} over {:?}): {:?}: {why}", row.kernel, row.elem, row.weight, row.op);
            }
        }
        lines.entry((row.kernel, row.elem.to_string(), format!("{:?}", row.weight))).or_default().push(row);
    }
    if args.json {
        let rows: Vec<_> = lines.values().flatten().map(describe).collect();
        println!("{}", json!({ "device": engine.name(), "cases": total, "failed": failed, "rows": rows }));
    } else {
        for ((kernel, elem, weight), rows) in &lines {
            let checks = || rows.iter().filter_map(|row| row.result.as_ref().ok());
            let worst = checks().map(|check| check.nmse).fold(0.0, f64::max);
            let allowed = checks().map(|check| check.tolerance).fold(0.0, f64::max);
            let passed = rows.iter().filter(|row| row.passed()).count();
            let verdict = if passed == rows.len() { "ok" } else { "FAILED" };
            println!(
                "{kernel:24} {elem:>5} {weight:>10} {worst:>10.1e} {allowed:>10.0e}  {passed}/{} {verdict}",
                rows.len()
            );
        }
        println!("{} of {total} cases passed", total - failed);
    }
    match (failed, total) {
        (_, 0) => Err(Failure::Usage(format!("no kernel's name contains `{only}`"))),
        (0, _) => Ok(()),
        _ => Err(Failure::Check(format!("{failed} of {total} cases failed on {}", engine.name()))),
    }
}

fn describe(row: &Row) -> serde_json::Value {
    let mut line = json!({
        "kernel": row.kernel,
        "op": format!("{:?}", row.op),
        "elem": row.elem.to_string(),
        "weights": format!("{:?}", row.weight),
        "passed": row.passed(),
    });
    match &row.result {
        Ok(check) => {
            line["nmse"] = json!(check.nmse);
            line["tolerance"] = json!(check.tolerance);
            line["max_abs"] = json!(check.max_abs);
            line["seconds"] = json!(check.time.as_secs_f64());
        }
        Err(error) => line["error"] = json!(error.to_string()),
    }
    line
}
