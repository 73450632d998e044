//! Peak memory is known before anything runs: the plan's figure against what a run held.

use ratel_diffusion::model::Model;
use ratel_diffusion::pipeline::{self, Event, Precision, Request, Watcher};
use ratel_diffusion::random::RandomSource;
use ratel_diffusion::sampling::{SamplerChoice, SamplerConfig, plan};
use ratel_engine::{DeviceChoice, Engine, EngineOptions};
use ratel_graph::{Finished, PlanOptions, Rule};
use ratel_models::Architecture;
use std::sync::atomic::AtomicBool;

struct Silent;

impl Watcher for Silent {
    fn event(&mut self, _event: Event) {}
}

#[test]
fn a_run_takes_what_its_plan_says() {
    let model = Model::of_architecture(&Architecture::toy(), 0).expect("the toy");
    let sampler = SamplerConfig::resolve(&model.scheduler, &SamplerChoice::default()).expect("its own sampler");
    let request = Request {
        prompt: "a badger".to_owned(),
        negative_prompt: String::new(),
        width: 192,
        height: 128,
        run: plan(&sampler, 2, 0).expect("two steps"),
        cfg_scale: 7.5,
        guidance_rescale: 0.0,
        seed: 1,
        noise: RandomSource::Torch,
        batch: 2,
        clip_skip: 1,
        precision: Precision::F32,
        rules: Rule::ALL.to_vec(),
        observe: vec![],
        observe_steps: vec![],
        keep_steps: false,
        init: None,
        variation: None,
        reveal: None,
    };
    let device =
        Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("an automatic choice can fall back");
    for engine in [Engine::twins(), device] {
        let target = pipeline::target(&engine, request.precision, model.elem).expect("f32 is everywhere");
        let bytes = |graph: Finished| {
            let plan = graph.plan(&target, &PlanOptions::default()).expect("a plan");
            plan.activation_bytes() + plan.weight_bytes()
        };
        let planned = [
            bytes(model.text_graph(2, 1).expect("a graph")),
            bytes(model.unet_graph(4, 16, 24).expect("a graph")),
            bytes(model.vae_graph(1, 16, 24).expect("a graph")),
        ];
        let planned = planned.into_iter().max().expect("three components") as f64;
        engine.reset_peak();
        pipeline::draw(&engine, &model, &request, &AtomicBool::new(false), &mut Silent).expect("pictures");
        let peak = engine.memory().peak as f64;
        let off = peak / planned - 1.0;
        assert!(off.abs() < 0.05, "{}: {peak} bytes held, {planned} planned", engine.name());
    }
}
