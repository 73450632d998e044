//! `cargo run -p ratel-engine --example check -- [PART OF A KERNEL'S NAME] [DEVICE]`: compares kernels with their twins.
#![allow(clippy::print_stdout)]

use ratel_engine::{DeviceChoice, Engine, EngineError, EngineOptions, selftest};

fn main() -> Result<(), EngineError> {
    let mut args = std::env::args().skip(1);
    let part = args.next().unwrap_or_default();
    let choice = args.next().map_or(DeviceChoice::Auto, |text| text.parse().unwrap_or_default());
    let engine = Engine::open(&choice, EngineOptions { checks: true, ..EngineOptions::default() })?;
    println!("{}: {:#?}", engine.name(), engine.device());
    for row in selftest(&engine, &part) {
        let verdict = if row.passed() { "ok  " } else { "FAIL" };
        print!("{verdict} {:<20} {} {:?} {:?}: ", row.kernel, row.elem, row.weight, row.op);
        match &row.result {
            Ok(check) => {
                let gflops = row.op.flops() / check.time.as_secs_f64() / 1e9;
                let (nmse, tolerance, max, scale) = (check.nmse, check.tolerance, check.max_abs, check.scale);
                print!("nmse {nmse:.1e} of {tolerance:.0e}, off by {max:.1e} of {scale:.1e}, ");
                println!("{} stray bytes, {:.1?}, {gflops:.2} GFLOP/s", check.stray, check.time);
            }
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
