//! Models against diffusers and transformers: the small checkpoints of `fixtures/models`, whose results
//! `tools/reference` computed, on the CPU twins and on the device at hand.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::latents::Source;
use ratel_diffusion::model::Model;
use ratel_diffusion::pipeline::{self, Precision, Request, Watcher};
use ratel_diffusion::random::RandomSource;
use ratel_diffusion::sampling::{
    Sampler, SamplerChoice, SamplerConfig, Schedule, SchedulerFile, plan, start_for_strength,
};
use ratel_diffusion::stage::Stage;
use ratel_engine::{DeviceChoice, Engine, EngineOptions, Hooks, Session};
use ratel_graph::{Finished, PlanOptions, Rule};
use ratel_tensor::HostTensor;
use ratel_tests::fixtures::{fixture, tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// Models of latents, and all models.
const MODELS: [&str; 3] = ["tiny", "tiny-v", "odd"];
const ALL: [&str; 4] = ["tiny", "tiny-v", "odd", "tiny-pixels"];

/// How far a tensor may be from the reference, relative, in f32. What was seen is nearer to 1e-6.
const TOLERANCE: f64 = 1e-4;

/// The twins, and the device if there is one.
fn engines() -> Vec<Engine> {
    let device =
        Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("an automatic choice can fall back");
    if device.device().is_none() {
        eprintln!("SKIPPED on a device: {}", device.note().unwrap_or_default());
        return vec![device];
    }
    vec![Engine::twins(), device]
}

fn open(name: &str) -> Model {
    Model::open(&fixture(&format!("models/{name}"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn load(engine: &Engine, model: &Model, graph: Finished, options: &PlanOptions) -> Session {
    let target = pipeline::target(engine, Precision::F32, model.elem).expect("f32 is everywhere");
    let plan = graph.plan(&target, options).expect("a plan");
    engine.load(plan, &*model.weights, &mut |_| {}).expect("the weights load")
}

fn near(what: &str, got: &HostTensor, reference: &HostTensor) {
    let error = got.relative_error(reference);
    assert!(error < TOLERANCE, "{what}: relative error {error:.2e} ({} against {})", got.shape, reference.shape);
}

/// Every module's output in a trace of `session`, compared with the reference's; every one of the reference's must be there.
fn compare_trace(name: &str, session: &Session, reference: &BTreeMap<String, HostTensor>) {
    let mut seen = BTreeMap::new();
    let observe = &mut |observed: &ratel_graph::Observed, values| {
        seen.insert(observed.name.clone(), HostTensor::new(observed.shape, values).channels_first());
    };
    session.run_observed(&mut Hooks::default(), observe).expect("a run");
    let engine = session.engine().name();
    for (module, expected) in reference.iter().filter(|(module, _)| !module.contains(".input.")) {
        // the norm of the VAE's attention sees (N, C, H W) where ours sees (N, C, H, W): the same numbers
        let Some(got) = seen.get(module) else { panic!("{name} on {engine}: no tensor for {module}") };
        let got =
            if got.shape == expected.shape { got.clone() } else { HostTensor::new(expected.shape, got.data.clone()) };
        near(&format!("{name} on {engine}: {module}"), &got, expected);
    }
}

fn everything() -> PlanOptions {
    PlanOptions { observe: vec!["*".to_owned()], ..PlanOptions::default() }
}

#[test]
fn text_encoders_equal_transformers() {
    for name in ALL {
        let model = open(name);
        let prompts: Value =
            serde_json::from_str(&std::fs::read_to_string(fixture("results/prompts.json")).expect("prompts"))
                .expect("JSON");
        let reference = tensors(&format!("results/{name}/text.safetensors"));
        let mut ids = Vec::new();
        for prompt in prompts["prompts"].as_array().expect("a list") {
            ids.extend(model.tokenizer.encode(prompt.as_str().expect("a prompt")).expect("tokens").ids);
        }
        assert_eq!(ids, reference["ids"].data.iter().map(|id| *id as u32).collect::<Vec<_>>(), "{name}: ids");
        for engine in engines() {
            for (clip_skip, key) in [(1, "embeddings"), (2, "embeddings_clip_skip_1")] {
                let expected = &reference[key];
                let batch = expected.shape[0];
                let graph = model.text_graph(batch, clip_skip).expect("a graph");
                let session = load(&engine, &model, graph, &PlanOptions::default());
                session.input("ids").expect("ids").write_u32(&ids[..batch * 77]).expect("a write");
                session.run(&mut Hooks::default()).expect("a run");
                let got = session.output("context").expect("context").read_f32().expect("a read");
                near(&format!("{name} on {}: {key}", engine.name()), &HostTensor::new(expected.shape, got), expected);
            }
            let trace = tensors(&format!("results/{name}/text_trace.safetensors"));
            let session = load(&engine, &model, model.text_graph(1, 1).expect("a graph"), &everything());
            session.input("ids").expect("ids").write_u32(&ids[..77]).expect("a write");
            compare_trace(name, &session, &trace);
        }
    }
}

/// Writes the inputs of a UNet call, channels first, and runs it.
fn call_unet(session: &Session, inputs: [&HostTensor; 3]) {
    let [sample, timestep, context] = inputs;
    let write = |name: &str, values: &[f32]| session.input(name).expect("an input").write_f32(values).expect("a write");
    write("sample", &sample.clone().channels_last().data);
    write("timestep", &timestep.data);
    write("context", &context.data);
}

#[test]
fn unets_equal_diffusers() {
    for name in ALL {
        let model = open(name);
        let trace = tensors(&format!("results/{name}/unet_trace.safetensors"));
        let calls = tensors(&format!("results/{name}/unet_calls.safetensors"));
        for engine in engines() {
            let input = |key: &str| &trace[&format!("unet.input.{key}")];
            let sample = input("sample");
            let graph = model.unet_graph(sample.shape[0], sample.shape[2], sample.shape[3]).expect("a graph");
            let session = load(&engine, &model, graph, &everything());
            let timestep = HostTensor::new([1], vec![input("timestep").data[0]]);
            call_unet(&session, [sample, &timestep, input("encoder_hidden_states")]);
            compare_trace(name, &session, &trace);

            for call in ["batch2", "batch3", "row"] {
                let part = |key: &str| &calls[&format!("{call}/{key}")];
                let sample = part("sample");
                // fused, unfused, and each rule left out by itself
                let mut sets = vec![Rule::ALL.to_vec(), vec![]];
                if call == "batch3" {
                    sets.extend(
                        Rule::ALL.map(|off| Rule::ALL.into_iter().filter(|rule| *rule != off).collect::<Vec<_>>()),
                    );
                }
                for rules in sets {
                    let graph = model.unet_graph(sample.shape[0], sample.shape[2], sample.shape[3]).expect("a graph");
                    let options = PlanOptions { rules: rules.clone(), observe: vec![] };
                    let session = load(&engine, &model, graph, &options);
                    call_unet(&session, [sample, part("timestep"), part("encoder_hidden_states")]);
                    session.run(&mut Hooks::default()).expect("a run");
                    let output = session.output("noise").expect("noise").read_f32().expect("a read");
                    let shape = session.plan().outputs[0].shape;
                    let got = HostTensor::new(shape, output).channels_first();
                    near(&format!("{name} on {}: {call} with {rules:?}", engine.name()), &got, part("output"));
                }
            }
        }
    }
}

/// What a plan computes once is there in every run that follows, whatever else ran in its slots: the timesteps of several
/// calls embedded together, keys and values of the prompt.
#[test]
fn what_is_computed_once_holds() {
    for name in MODELS {
        let model = open(name);
        let calls = tensors(&format!("results/{name}/unet_calls.safetensors"));
        let part = |key: &str| &calls[&format!("batch3/{key}")];
        let (sample, timestep) = (part("sample"), &part("timestep").data);
        let [n, _, h, w] = *sample.shape else { panic!("four axes") };
        for (engine, rules) in
            engines().into_iter().flat_map(|e| [(e.clone(), Rule::ALL.to_vec()), (e, vec![Rule::Once])])
        {
            let graph = model.unet_graph_of_calls(5, n, h, w).expect("a graph");
            let session = load(&engine, &model, graph, &PlanOptions { rules, observe: vec![] });
            let once = session.plan().steps[..session.plan().prologue].iter().map(|step| step.label.as_str());
            let once: Vec<&str> = once.collect();
            // keys and values by themselves, or joined
            for part in ["time_embedding.linear_1", "time_emb_proj", "attn2.to_k", "to_v"] {
                assert!(once.iter().any(|label| label.contains(part)), "{part} is computed once");
            }
            assert!(once.iter().all(|label| !label.ends_with("attn2.to_q") && !label.contains("conv")), "{once:?}");

            let input = |name: &str| session.input(name).expect("an input");
            input("context").write_f32(&part("encoder_hidden_states").data).expect("a write");
            let values = [7.0, timestep[2], timestep[0], 900.0, timestep[1]];
            input("timestep").write_f32(&values).expect("a write");
            assert!(session.run_again(&mut Hooks::default()).is_err(), "the prologue was not run");
            session.prepare(&mut Hooks::default()).expect("a run");
            let values = sample.clone().channels_last().data;
            for (rows, scale) in [([0, 3, 3], 3.0), ([2, 4, 1], 1.0)] {
                let scaled: Vec<f32> = values.iter().map(|value| value * scale).collect();
                input("sample").write_f32(&scaled).expect("a write");
                input("row").write_u32(&rows).expect("a write");
                session.run_again(&mut Hooks::default()).expect("a run");
            }
            let output = session.output("noise").expect("noise").read_f32().expect("a read");
            let got = HostTensor::new([n, h, w, output.len() / (n * h * w)], output).channels_first();
            near(&format!("{name} on {}, a later run", engine.name()), &got, part("output"));
        }
    }
}

#[test]
fn vae_decoders_equal_diffusers() {
    for name in MODELS {
        let model = open(name);
        let mut trace = tensors(&format!("results/{name}/vae_trace.safetensors"));
        trace.retain(|module, _| !of_encoder(module));
        for engine in engines() {
            let latents = &trace["vae.input.latents"];
            let graph = model.vae_graph(1, latents.shape[2], latents.shape[3]).expect("a graph");
            let session = load(&engine, &model, graph, &everything());
            let values = latents.clone().channels_last().data;
            session.input("latents").expect("latents").write_f32(&values).expect("a write");
            compare_trace(name, &session, &trace);
        }
    }
}

/// Whether a module of the VAE's, or an input, is one of its encoder's.
fn of_encoder(module: &str) -> bool {
    ["vae.encoder", "vae.quant_conv", "vae.input.image"].iter().any(|part| module.starts_with(part))
}

#[test]
fn vae_encoders_equal_diffusers() {
    // whatever layout the file has
    let files = ["tiny", "tiny.safetensors", "tiny-v", "tiny-v.safetensors", "odd"];
    for (name, file) in files.map(|file| (file.trim_end_matches(".safetensors"), file)) {
        let mut model = open(file);
        // how many groups a norm has is in no single file: it is taken to be Stable Diffusion's, which these small ones aren't
        let config = open(name).vae.map(|(_, config)| config);
        model.vae = model.vae.map(|(catalogue, known)| (catalogue, config.unwrap_or(known)));
        let mut trace = tensors(&format!("results/{name}/vae_trace.safetensors"));
        trace.retain(|module, _| of_encoder(module));
        assert!(trace.len() > 5, "{name}: the encoder's modules were traced");
        for engine in engines() {
            let image = &trace["vae.input.image"];
            let graph = model.vae_encoder_graph(image.shape[2], image.shape[3]).expect("a graph");
            let session = load(&engine, &model, graph, &everything());
            let values = image.clone().channels_last().data;
            session.input("picture").expect("picture").write_f32(&values).expect("a write");
            compare_trace(file, &session, &trace);
        }
    }
}

#[test]
fn pictures_become_the_latents_that_diffusers_draws() {
    for name in MODELS {
        let (model, reference) = (open(name), tensors(&format!("results/{name}/img2img.safetensors")));
        let picture = picture(&reference, 72, 40);
        for engine in engines() {
            let stage = Stage {
                engine: &engine,
                model: &model,
                precision: Precision::F32,
                rules: &Rule::ALL,
                observe: &[],
                stop: &AtomicBool::new(false),
            };
            let [_, c, h, w] = *reference["mode"].shape else { panic!("four axes") };
            let noise = Source::new(RandomSource::Torch, 42, [1, c, h, w]).draw();
            for (key, noise) in [("mode", HostTensor::zeros(noise.shape)), ("sample", noise)] {
                let encoded = stage.encode(&picture, &noise, &mut Silent).expect("latents");
                let what = |part| format!("{name} on {}: {part}", engine.name());
                near(&what("moments"), &encoded.moments.channels_first(), &reference["moments"]);
                near(&what(key), &encoded.latents.channels_first(), &reference[key]);
            }
        }
    }
}

/// The picture of this size that runs from a picture start from.
fn picture(reference: &BTreeMap<String, HostTensor>, width: usize, height: usize) -> Picture {
    let picture = reference[&format!("image/{width}x{height}")].clone().channels_last();
    Picture { width, height, rgb: picture.data.iter().map(|value| *value as u8).collect() }
}

struct Silent;

impl Watcher for Silent {
    fn event(&mut self, _event: pipeline::Event) {}
}

/// A request of `runs.json`, for one of its prompts.
fn request(folder: &str, run: &Value, prompt: usize) -> Request {
    let text = |key: &str| run[key].as_str().expect(key).to_owned();
    let count = |key: &str| run[key].as_u64().expect(key) as usize;
    let file = std::fs::read_to_string(fixture(&format!("models/{folder}/scheduler/scheduler_config.json")));
    let mut config: Value = serde_json::from_str(&file.expect("a scheduler")).expect("JSON");
    for (key, value) in run["scheduler_overrides"].as_object().expect("overrides") {
        config[key] = value.clone();
    }
    let choice = SamplerChoice {
        sampler: Some(Sampler::parse(&text("sampler")).expect("a sampler").0),
        schedule: match text("schedule").as_str() {
            "normal" => None,
            name => Some(Schedule::parse(name).expect("a schedule")),
        },
        eta: run["eta"].as_f64(),
        ..SamplerChoice::default()
    };
    let scheduler = SchedulerFile::from_value(config).expect("a scheduler");
    let sampler = SamplerConfig::resolve(&scheduler, &choice).expect("a sampler");
    let start = run["strength"].as_f64().map_or(0, |strength| start_for_strength(count("steps"), strength));
    Request {
        prompt: run["prompts"][prompt].as_str().expect("a prompt").to_owned(),
        negative_prompt: text("negative"),
        width: count("width"),
        height: count("height"),
        run: plan(&sampler, count("steps"), start).expect("a run"),
        cfg_scale: run["cfg"].as_f64().expect("cfg") as f32,
        guidance_rescale: 0.0,
        seed: run["seed"].as_u64().expect("a seed") + prompt as u64,
        noise: RandomSource::Torch,
        batch: count("batch"),
        clip_skip: run["clip_skip"].as_u64().unwrap_or(0) as usize + 1,
        precision: Precision::F32,
        rules: Rule::ALL.to_vec(),
        observe: vec![],
        observe_steps: vec![],
        keep_steps: false,
        init: None,
        variation: None,
        reveal: None,
    }
}

/// Whole runs: every sampler, several sizes, prompts and batches. The latents, and of the first run the picture.
fn compare_runs(folder: &str, file: &str, engine: &Engine, only: impl Fn(usize) -> bool) {
    let model = open(folder);
    let runs = std::fs::read_to_string(fixture(&format!("results/{folder}/{file}.json"))).expect("runs");
    let runs: Value = serde_json::from_str(&runs).expect("JSON");
    let reference = tensors(&format!("results/{folder}/{file}.safetensors"));
    let mut worst = (0.0, String::new());
    let mut failures = Vec::new();
    for (i, run) in runs["runs"].as_array().expect("a list").iter().enumerate().filter(|(i, _)| only(*i)) {
        let name = run["name"].as_str().expect("a name");
        let expected = &reference[name];
        for prompt in 0..run["prompts"].as_array().expect("prompts").len() {
            let mut request = request(folder, run, prompt);
            if run["strength"].is_number() {
                request.init = Some(picture(&reference, request.width, request.height));
            }
            let drawn = pipeline::draw(engine, &model, &request, &AtomicBool::new(false), &mut Silent)
                .unwrap_or_else(|error| panic!("{folder} {run}: {error}"));
            let images = request.batch;
            let one = expected.data.len() / expected.shape[0];
            let part = expected.data[prompt * images * one..(prompt + 1) * images * one].to_vec();
            let part = HostTensor::new(drawn.latents.shape, part);
            let error = drawn.latents.relative_error(&part);
            // diffusers takes this sampler's steps from the difference of nearly equal f32 numbers
            let tolerance = if run["sampler"] == "dpm2_a" { 1e-3 } else { TOLERANCE };
            if error >= tolerance {
                failures.push(format!("{error:.2e} in {run}"));
            }
            if error > worst.0 {
                worst = (error, run.to_string());
            }
            if i == 0 && file == "runs" {
                let pictures = reference["0/pictures"].clone().channels_last();
                let differences = drawn.pictures[0]
                    .iter()
                    .zip(&pictures.data)
                    .map(|(got, want)| (f32::from(*got) - want * 255.0).abs());
                let most = differences.fold(0.0, f32::max);
                assert!(most <= 2.0, "{folder} on {}: a picture off by {most}/255", engine.name());
            }
        }
    }
    eprintln!("{folder} {file} on {}: worst latents {:.2e} in {}", engine.name(), worst.0, worst.1);
    assert!(failures.is_empty(), "{folder} on {}:\n{}", engine.name(), failures.join("\n"));
}

#[test]
fn runs_equal_diffusers_on_the_twins() {
    for name in ALL {
        compare_runs(name, "runs", &Engine::twins(), |_| true);
    }
}

#[test]
fn runs_from_a_picture_equal_diffusers_on_the_twins() {
    for name in ALL {
        compare_runs(name, "img2img", &Engine::twins(), |_| true);
    }
}

#[test]
fn runs_equal_diffusers_on_the_device() {
    let engine = engines().pop().expect("at least the twins");
    // samplers share their kernels, so a device needs only some of the runs
    compare_runs("tiny", "img2img", &engine, |i| [0, 5, 10, 22].contains(&i));
    compare_runs("tiny", "runs", &engine, |i| [0, 2, 5, 13, 33, 35].contains(&i));
    compare_runs("tiny-v", "runs", &engine, |i| i == 0);
    compare_runs("tiny-pixels", "runs", &engine, |i| [0, 4, 10].contains(&i));
    compare_runs("tiny-pixels", "img2img", &engine, |i| [0, 22].contains(&i));
}
