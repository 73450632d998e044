//! Every kernel against its CPU twin on the device at hand, in every variant, over every case.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{DeviceChoice, Engine, EngineOptions, selftest};

/// With the shaders' runtime checks on, and once more with `Params` in a uniform buffer: what devices without immediates
/// get.
#[test]
fn kernels_equal_their_twins() {
    let mut failures = Vec::new();
    for immediates in [true, false] {
        let options = EngineOptions { checks: true, immediates, ..EngineOptions::default() };
        let engine = Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins");
        if engine.device().is_none() {
            eprintln!("SKIPPED: no kernel was run, for want of a device ({})", engine.note().unwrap_or_default());
            return;
        }
        let mut rows = 0;
        for row in selftest(&engine, "") {
            rows += 1;
            if !row.passed() {
                let (op, kernel, elem, weight) = (&row.op, row.kernel, row.elem, row.weight);
                let how = match &row.result {
                    Ok(check) => format!("{check:?}"),
                    Err(error) => error.to_string(),
                };
                failures.push(format!("{kernel} {elem} {weight:?} immediates {immediates}: {op:?}: {how}"));
            }
        }
        assert!(rows > 0, "there are kernels, and none was run on {}", engine.name());
    }
    assert!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
}
