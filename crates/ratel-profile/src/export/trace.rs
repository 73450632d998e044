//! Chrome's trace events as JSON, which Perfetto shows: the host's stages on one track, dispatches on others, what the
//! memory held as counters.

use crate::{Dispatch, Limit, Profile};
use ratel_engine::Roof;
use serde_json::{Map, Value, json};
use std::io::Write;

const PROCESS: u32 = 1;
const HOST: usize = 1;
/// The first track of dispatches: further ones are for those that overlap.
const DEVICE: usize = 2;

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
    let run = &profile.run;
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
    serde_json::to_writer(&mut *out, run)?;
    write!(out, ",\"traceEvents\":[")?;
    let mut events = Events { out, first: true };
    events.push(&name("process_name", 0, &format!("{} on {}", run.model, run.device)))?;
    events.push(&name("thread_name", HOST, "host: stages"))?;

    for span in &profile.spans {
        let title = span.step.map_or_else(|| span.stage.clone(), |step| format!("{} {step}", span.stage));
        let args = json!({ "stage": span.stage, "step": span.step });
        events.push(&slice(HOST, &title, "stage", span.begin_ns, span.ns.first().copied().unwrap_or(0), args))?;
    }
    let lanes = lanes(&profile.dispatches);
    for lane in 0..lanes.iter().max().map_or(0, |most| most + 1) {
        let more = if lane == 0 { String::new() } else { format!(" ({})", lane + 1) };
        events.push(&name("thread_name", DEVICE + lane, &format!("device: dispatches{more}")))?;
    }
    let mut before = None;
    for (dispatch, lane) in profile.dispatches.iter().zip(lanes) {
        let ns = dispatch.ns.first().copied().unwrap_or(0);
        let args = args(dispatch, ns, run.roof.as_ref());
        events.push(&slice(DEVICE + lane, &dispatch.module, &dispatch.kernel, dispatch.begin_ns, ns, args))?;
        let memory = (dispatch.held_bytes, dispatch.used_bytes);
        if before.replace(memory) != Some(memory) {
            let mut values = Map::from_iter([("held".to_owned(), json!(memory.0))]);
            if let Some(used) = memory.1 {
                values.insert("in use".to_owned(), json!(used));
            }
            events.push(&json!({
                "ph": "C", "pid": PROCESS, "name": "device memory (bytes)", "ts": micros(dispatch.begin_ns), "args": values,
            }))?;
        }
    }
    write!(out, "\n]}}")
}

struct Events<'a> {
    out: &'a mut dyn Write,
    first: bool,
}

impl Events<'_> {
    fn push(&mut self, event: &Value) -> std::io::Result<()> {
        write!(self.out, "{}{event}", if self.first { "\n" } else { ",\n" })?;
        self.first = false;
        Ok(())
    }
}

fn name(what: &str, thread: usize, name: &str) -> Value {
    json!({ "ph": "M", "pid": PROCESS, "tid": thread, "name": what, "args": { "name": name } })
}

fn slice(thread: usize, name: &str, category: &str, begin: u64, ns: u64, args: Value) -> Value {
    json!({
        "ph": "X", "pid": PROCESS, "tid": thread, "name": name, "cat": category,
        "ts": micros(begin), "dur": micros(ns), "args": args,
    })
}

/// Trace events count in microseconds.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn args(dispatch: &Dispatch, ns: u64, roof: Option<&Roof>) -> Value {
    let mut args = json!({
        "stage": dispatch.stage,
        "step": dispatch.step,
        "module": dispatch.module,
        "op": dispatch.op,
        "shape": dispatch.shape,
        "kernel": dispatch.kernel,
        "variant": dispatch.variant,
        "file": dispatch.file,
        "workgroups": dispatch.workgroups,
        "flops": dispatch.flops,
        "bytes": dispatch.bytes,
    });
    if ns > 0 {
        args["GFLOP/s"] = json!(dispatch.flops / ns as f64);
        args["GB/s"] = json!(dispatch.bytes / ns as f64);
        if let Some(roof) = roof {
            let limit = Limit::of(roof, dispatch.flops, dispatch.bytes, dispatch.unit);
            args["share of roof"] = json!(limit.ns / ns as f64);
            args["bound by"] = json!(limit.bound.name());
        }
    }
    args
}

/// A track for each dispatch, so that those that run at the same time don't share one.
fn lanes(dispatches: &[Dispatch]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dispatches.len()).collect();
    order.sort_by_key(|&i| dispatches[i].begin_ns);
    let mut free: Vec<u64> = Vec::new();
    let mut lanes = vec![0; dispatches.len()];
    for i in order {
        let begin = dispatches[i].begin_ns;
        let end = begin.saturating_add(dispatches[i].ns.first().copied().unwrap_or(0));
        let lane = free.iter().position(|&until| until <= begin).unwrap_or(free.len());
        if lane == free.len() {
            free.push(end);
        } else {
            free[lane] = end;
        }
        lanes[i] = lane;
    }
    lanes
}
