use super::setup;
use crate::args::RooflineArgs;
use crate::units::{percent, seconds, si};
use crate::{Failure, progress};
use ratel_engine::{Probe, Roof, cache_folder};

/// Measures a device's roof, or prints what was measured before.
pub(crate) fn run(args: RooflineArgs) -> Result<(), Failure> {
    let engine = setup::engine_to_time(&args.device, args.shaders.as_deref())?.stopped_by(setup::stop_on_ctrl_c()?);
    let spinner = progress::spinner();
    let mut measured = false;
    let mut tell = |what: &str| {
        measured = true;
        spinner.set_message(what.to_owned());
    };
    let folder = cache_folder();
    let roof = if args.fresh {
        Roof::fresh_in(folder.as_deref(), &engine, &mut tell)
    } else {
        Roof::cached_in(folder.as_deref(), &engine, &mut tell)
    };
    spinner.finish_and_clear();
    let roof = roof?;
    if args.json {
        println!("{}", serde_json::json!(roof));
        return Ok(());
    }
    println!("{}", roof.device);
    println!("driver {}", roof.driver);
    println!("{:15} {:26} {:>14} {:>7} {:>5}", "microkernel", "", "median", "+-", "runs");
    for Probe { kernel, what, median, spread, runs } in &roof.probes {
        let median = match kernel.as_str() {
            "roof_empty" => seconds(*median),
            "roof_copy" | "roof_workgroup" => si(*median, "B/s"),
            _ => si(*median, "FLOP/s"),
        };
        println!("{kernel:15} {what:26} {median:>14} {:>7} {runs:>5}", percent(*spread));
    }
    let ridge = roof.flops() / roof.copy_bytes;
    println!("a kernel of more than {ridge:.1} FLOP to a byte is bound by compute, one of fewer by memory");
    if !measured {
        println!("measured before; --fresh measures anew");
    }
    Ok(())
}
