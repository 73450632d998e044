//! A table with a line for each dispatch (RFC 4180).

use crate::{Dispatch, Limit, Profile, Samples};
use ratel_engine::Roof;
use std::io::Write;

const COLUMNS: &str = "stage,step,module,op,shape,kernel,variant,file,workgroups_x,workgroups_y,workgroups_z,flops,bytes,\
                       begin_ns,ns,low_ns,high_ns,runs,flops_per_second,bytes_per_second,roof_share,bound,held_bytes,used_bytes";

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{COLUMNS}")?;
    for dispatch in &profile.dispatches {
        let fields = fields(dispatch, profile.run.roof.as_ref());
        let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
        writeln!(out, "{}", quoted.join(","))?;
    }
    Ok(())
}

fn fields(dispatch: &Dispatch, roof: Option<&Roof>) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let Samples { count, median, low, high } = Samples::of_sums([&dispatch.ns[..]]);
    let rate = |what: f64| if median > 0.0 { (what / median * 1e9).to_string() } else { String::new() };
    let limit = roof.map(|roof| Limit::of(roof, dispatch.flops, dispatch.bytes, dispatch.unit));
    let share = limit.filter(|_| median > 0.0).map(|limit| (limit.ns / median).to_string());
    let workgroups = |axis: usize| number(dispatch.workgroups.map(|all| u64::from(all[axis])));
    vec![
        dispatch.stage.clone(),
        number(dispatch.step.map(|step| step as u64)),
        dispatch.module.clone(),
        dispatch.op.clone(),
        dispatch.shape.clone(),
        dispatch.kernel.clone(),
        dispatch.variant.clone(),
        dispatch.file.clone().unwrap_or_default(),
        workgroups(0),
        workgroups(1),
        workgroups(2),
        dispatch.flops.to_string(),
        dispatch.bytes.to_string(),
        dispatch.begin_ns.to_string(),
        median.to_string(),
        low.to_string(),
        high.to_string(),
        count.to_string(),
        rate(dispatch.flops),
        rate(dispatch.bytes),
        share.unwrap_or_default(),
        limit.map_or(String::new(), |limit| limit.bound.name().to_owned()),
        dispatch.held_bytes.to_string(),
        number(dispatch.used_bytes),
    ]
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
