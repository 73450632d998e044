//! `ratel profile` as its users run it: what it writes and says, against the plans of what it ran.

use ratel_diffusion::model::Model;
use ratel_engine::{DeviceChoice, Engine, EngineOptions};
use ratel_graph::{Finished, Plan, PlanOptions, Step};
use ratel_kernels::{Target, WeightStorage};
use ratel_profile::{Clock, Profile, read, summary};
use ratel_tests::program::{Place, SMALL};
use ratel_weights::{Checkpoint, Files};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn profile(place: &Place, name: &str) -> Profile {
    read(&place.bytes(name)[..]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The plans of cub at 64x64 with guidance: text encoder, UNet, VAE decoder.
fn plans() -> [Plan; 3] {
    let checkpoint = Checkpoint::open(Files::Embedded(ratel_cub::FILES), Path::new(ratel_cub::NAME));
    let cub = Model::of_checkpoint(checkpoint.expect("cub opens")).expect("cub is a model");
    let plan =
        |graph: Finished| graph.plan(&Target::twins(WeightStorage::F16), &PlanOptions::default()).expect("a plan");
    let text = cub.text_graph(2, 1).expect("a graph");
    let [unet, vae] =
        [cub.unet_graph_of_calls(2, 2, 8, 8), cub.vae_graph(1, 8, 8)].map(|graph| graph.expect("a graph"));
    [plan(text), plan(unet), plan(vae)]
}

/// A profile of two steps of cub, against the plans.
fn check(profile: &Profile) {
    let [text, unet, vae] = plans();
    for (stage, part, planned, runs) in
        [("text_encoder", "text_encoder.", &text, 1), ("unet", "unet.", &unet, 2), ("vae_decoder", "vae.", &vae, 1)]
    {
        let ran: Vec<_> =
            profile.dispatches.iter().filter(|d| d.stage == stage && d.module.starts_with(part)).collect();
        let flops: f64 = ran.iter().map(|dispatch| dispatch.flops).sum();
        let (once, always) = planned.steps.split_at(planned.prologue);
        let sum = |steps: &[Step]| steps.iter().map(|step| step.op.flops()).sum::<f64>();
        let expected = sum(once) + sum(always) * f64::from(runs);
        assert!((flops / expected - 1.0).abs() < 1e-9, "{stage}: {flops} in the profile, {expected} in the plan");
        let modules =
            |step| ran.iter().filter(move |d| d.step == step).map(|d| d.module.as_str()).collect::<BTreeSet<_>>();
        // what is computed once belongs to no step of the sampler
        let parts: &[(_, &[Step])] =
            if stage == "unet" { &[(None, once), (Some(0), always), (Some(1), always)] } else { &[(None, always)] };
        for (step, planned) in parts {
            let labels: BTreeSet<_> = planned.iter().map(|step| step.label.as_str()).collect();
            assert_eq!(modules(*step), labels, "{stage}, {step:?}: one name everywhere");
        }
    }
    let stages: BTreeSet<&str> = profile.dispatches.iter().map(|dispatch| dispatch.stage.as_str()).collect();
    assert_eq!(stages, BTreeSet::from(["sampler", "text_encoder", "unet", "vae_decoder"]));
    let sampler: BTreeSet<&str> = profile
        .dispatches
        .iter()
        .filter(|dispatch| dispatch.stage == "sampler")
        .map(|dispatch| dispatch.module.as_str())
        .collect();
    assert_eq!(sampler, BTreeSet::from(["sampler.combine", "sampler.guidance", "sampler.scale_latents"]));
    let summary = summary(profile);
    assert!(summary.busy_ns > 0.0 && summary.device_ns.high >= summary.busy_ns, "{summary:?}");
    assert!(summary.peak_bytes > 0 && profile.dispatches.iter().all(|d| d.held_bytes <= summary.peak_bytes));
    assert!(profile.dispatches.iter().all(|d| d.used_bytes.is_none_or(|used| used > 0 && used <= d.held_bytes)));
}

#[test]
fn on_the_twins() {
    let place = Place::new();
    let with = |more: &[&'static str]| [&["profile", "a red dragon", "--no-roof"], SMALL, more].concat();
    let said = place.succeed(&with(&["-o", "p.jsonl", "--top", "3"]));
    for part in
        ["cub, 64x64, 2 steps of ", "on CPU twins", "by module", "by kernel", "wall time ", "idle ", "peak memory "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("bound by") && !said.contains("to be gained"), "without a roof: {said}");
    assert!(said.contains("with no dispatch timed (one run of each"), "what profiling cost: {said}");
    let twins = profile(&place, "p.jsonl");
    assert_eq!((twins.run.clock, twins.runs()), (Clock::Twins, 1));
    assert!(twins.dispatches.iter().all(|d| d.file.is_none() && d.workgroups.is_none() && d.variant == "twin"));
    check(&twins);
    let wall: f64 = summary(&twins).wall_ns.median;
    assert!(summary(&twins).busy_ns <= wall, "the twins run within the host's time");

    // the other formats, by their names or by the option
    let once = |more: &[&'static str]| place.succeed(&[&with(&["--once"])[..], more].concat());
    let count = format!("{} dispatches", twins.dispatches.len());
    assert!(once(&["-o", "p.json"]).trim_end().ends_with(&format!("p.json: {count}")));
    let trace: Value = serde_json::from_slice(&place.bytes("p.json")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let slices = events.iter().filter(|event| event["ph"] == "X" && event["args"]["kernel"].is_string()).count();
    assert_eq!(slices, twins.dispatches.len());
    once(&["-o", "p.csv"]);
    let table = String::from_utf8(place.bytes("p.csv")).expect("UTF-8");
    assert_eq!(table.lines().count(), 1 + twins.dispatches.len());
    once(&["-o", "stacks", "--format", "folded"]);
    let stacks = String::from_utf8(place.bytes("stacks")).expect("UTF-8");
    assert!(
        stacks.contains("unet;mid_block;attentions.0;transformer_blocks.0;attn1;to_q+to_k+to_v;matmul "),
        "{stacks:.500}"
    );
    once(&["-o", "p.html"]);
    assert!(place.bytes("p.html").starts_with(b"<!doctype html>"));
    assert_eq!(place.files(), ["p.csv", "p.html", "p.json", "p.jsonl", "stacks"], "and nothing else");
}

#[test]
fn tables_and_steps_as_asked() {
    let place = Place::new();
    let with = |more: &[&'static str]| [&["profile", "--no-roof", "--once"], SMALL, more].concat();
    let said = place.succeed(&with(&["--json", "--group-by", "shape", "--top", "3", "--steps-range", "1"]));
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["run"]["recorded_steps"], serde_json::json!([1, 2]), "{said}");
    let rows = said["rows"]["shape"].as_array().expect("rows");
    assert!(rows.len() == 3 && said["rows"]["module"].is_null(), "{said}");
    assert!(rows[0]["ns"]["median"].as_f64() >= rows[1]["ns"]["median"].as_f64(), "the longest first");
    let [text, unet, vae] = plans();
    let expected = text.flops() + unet.flops() + vae.flops();
    let flops = said["summary"]["flops"].as_f64().expect("a number");
    assert!(expected < flops && flops < expected * 1.01, "one step and its sampler: {flops}, {expected} in the plans");
}

#[test]
fn two_profiles_are_compared() {
    let place = Place::new();
    let repeated = [&["profile", "--no-roof", "--repeat", "3", "-o", "a.jsonl"], SMALL].concat();
    let said = place.succeed(&repeated);
    assert!(said.contains("medians of 3 runs") && said.contains(" in 3 pairs of runs"), "{said}");
    let a = profile(&place, "a.jsonl");
    assert!(a.runs() == 3 && a.spans.iter().all(|span| span.ns.len() == 3 && span.plain_ns.len() == 3));

    let said = place.succeed(&["profile", "diff", "a.jsonl", "a.jsonl"]);
    assert!(said.contains("within noise") && said.contains("by chance alone 10.0%"), "{said}");
    assert!(!said.contains("  faster") && !said.contains("  slower"), "{said}");
    let json: Value =
        serde_json::from_str(&place.succeed(&["profile", "diff", "a.jsonl", "a.jsonl", "--json"])).expect("JSON");
    let modules = json["modules"].as_array().expect("changes");
    assert!(modules.len() > 100 && modules.iter().all(|change| change["verdict"] == "noise"), "{}", modules.len());

    // a kernel that got much slower
    let text = String::from_utf8(place.bytes("a.jsonl")).expect("UTF-8");
    let slower = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        if line["module"] == "unet.conv_in" {
            let ns = line["ns"].as_array_mut().expect("samples");
            ns.iter_mut().for_each(|ns| *ns = (ns.as_u64().expect("a number") * 100 + 10_000_000_000).into());
        }
        line.to_string() + "\n"
    });
    std::fs::write(place.path("b.jsonl"), slower.collect::<String>()).expect("a file");
    let said = place.succeed(&["profile", "diff", "a.jsonl", "b.jsonl", "--top", "1"]);
    let line = said.lines().find(|line| line.starts_with("unet.conv_in ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.ends_with("slower"), "{line}");
}

#[test]
fn what_cannot_be_profiled_or_compared() {
    let place = Place::new();
    std::fs::write(place.path("cat.txt"), "a cat\n").expect("a file");
    std::fs::write(place.path("empty.jsonl"), "").expect("a file");
    let with = |more: &[&'static str]| [&["profile", "x", "--no-roof"], SMALL, more].concat();
    for (more, code, parts) in [
        (&["-o", "p.png"][..], 2, &["p.png", ".html", "--format"][..]),
        (&["-o", "nowhere/p.html"], 1, &["nowhere/p.html", "no folder nowhere"]),
        (&["--steps-range", "2..9"], 2, &["--steps-range 2..9", "2 steps"]),
        (&["--steps-range", "one"], 2, &["--steps-range one", "2..5"]),
        (&["--repeat", "0"], 2, &["--repeat", "1 to 1000"]),
        (&["-m", "cat.txt"], 1, &["cat.txt", "not a safetensors file"]),
    ] {
        place.refuse(&with(more), code, parts);
    }
    place.refuse(&["profile", "-d", "cpu", "--no-roof", "--steps", "0"], 2, &["0", "steps"]);
    place.refuse(&["profile", "diff", "cat.txt", "cat.txt"], 1, &["cat.txt", "line 1", "-o FILE.jsonl"]);
    place.refuse(&["profile", "diff", "empty.jsonl", "cat.txt"], 1, &["empty.jsonl", "no dispatches"]);
    place.refuse(&["profile", "diff", "nothing.jsonl", "cat.txt"], 1, &["nothing.jsonl"]);
    place.refuse(&["profile", "diff", ".", "cat.txt"], 1, &["can't be read"]);
}

#[test]
#[allow(clippy::print_stderr)] // a skipped test must be seen
fn on_the_device_at_hand() {
    let engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it can fall back");
    let Some(info) = engine.device().cloned() else {
        eprintln!("SKIPPED for want of a device");
        return;
    };
    drop(engine);
    let place = Place::new();
    let run = |more: &[&str]| {
        let arguments =
            [&["profile", "a red dragon", "-W", "64", "-H", "64", "--steps", "2", "--repeat", "2"], more].concat();
        place.succeed(&arguments)
    };
    let said = run(&["-o", "p.jsonl"]);
    for part in ["roof: f32 ", "bound by", "to be gained at most"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let profile = profile(&place, "p.jsonl");
    check(&profile);
    assert_eq!(profile.run.clock, if info.timestamps { Clock::Device } else { Clock::Host });
    for dispatch in &profile.dispatches {
        assert!(dispatch.file.as_ref().is_some_and(|file| ratel_tests::repository::root().join(file).is_file()));
        assert!(dispatch.workgroups.is_some_and(|all| all.iter().all(|count| *count > 0)), "{dispatch:?}");
        assert!(dispatch.ns.len() == 2 && dispatch.bytes > 0.0, "{dispatch:?}");
    }
    assert!(profile.run.roof.as_ref().is_some_and(|roof| roof.device == info.to_string()), "{:?}", profile.run.roof);
    if info.timestamps {
        let summary = summary(&profile);
        assert!(
            summary.busy_ns <= 1.05 * summary.wall_ns.high,
            "the device worked within the host's time: {summary:?}"
        );
    }
    assert!(profile.run.first_step_ns.is_some() && said.contains("first step "), "{said}");
    let host = summary(&profile).host.expect("a device did it");
    assert!(host.step_ns.low > 0.0 && host.dispatches > 100 && said.contains("CPU time "), "{host:?}: {said}");
    assert!(!run(&["--no-roof"]).contains("bound by"));
}

#[cfg(unix)]
#[test]
fn interrupted() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let place = Place::new();
    // in the middle of a run, and of the roof's measurement before it
    for more in [&["--no-roof"][..], &[]] {
        let long = ["profile", "x", "-d", "cpu", "--steps", "900", "-o", "never.html"];
        let mut command = place.command(&[&long[..], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert!(lines.next().expect("a line").expect("text").starts_with("cub, 128x128, 900 steps"));
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let output = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{errors}");
        assert_eq!(errors.lines().filter(|line| line.starts_with("ratel: ")).count(), 1, "{errors}");
        assert!(place.files().is_empty(), "{:?}", place.files());
    }
    assert!(!place.path("cache").exists(), "a roof that was not measured to the end is not kept");
}
