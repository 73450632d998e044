//! Between pictures, latents and noise: what the stages of a run promise to each other, whatever the model.

use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{self, Denoised, Event, Precision, Request, Seen, Variation, Watcher};
use ratel_diffusion::random::RandomSource;
use ratel_diffusion::sampling::{Prediction, SamplerChoice, SamplerConfig};
use ratel_diffusion::stage::Stage;
use ratel_engine::Engine;
use ratel_graph::Rule;
use ratel_tensor::HostTensor;
use ratel_tests::fixtures::fixture;
use std::sync::atomic::AtomicBool;

#[derive(Default)]
struct Kept(Vec<Seen>);

impl Watcher for Kept {
    fn event(&mut self, _event: Event) {}
    fn seen(&mut self, seen: Seen) {
        self.0.push(seen);
    }
}

fn model(name: &str) -> Model {
    Model::open(&fixture(&format!("models/{name}"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Three steps of 64x64 with the model's sampler, or that of a name.
fn request(model: &Model, sampler: Option<&str>, strength: f64) -> (Request, SamplerConfig) {
    let parse = |name| ratel_diffusion::sampling::Sampler::parse(name).expect("a sampler").0;
    let choice = SamplerChoice { sampler: sampler.map(parse), ..SamplerChoice::default() };
    let (config, run) = model.sampler_for_strength(&choice, 3, strength).expect("a run");
    let request = Request {
        prompt: "a fox".to_owned(),
        negative_prompt: "fog".to_owned(),
        width: 64,
        height: 64,
        run,
        cfg_scale: 5.0,
        guidance_rescale: 0.0,
        seed: 3,
        noise: RandomSource::Torch,
        batch: 1,
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
    (request, config)
}

fn denoise(model: &Model, request: &Request, watcher: &mut dyn Watcher) -> Result<Denoised, DiffusionError> {
    pipeline::denoise(&Engine::twins(), model, request, &AtomicBool::new(false), watcher)
}

/// `a * x + b * y`.
fn mix(a: f64, x: &HostTensor, b: f64, y: &HostTensor) -> HostTensor {
    let mixed = x.data.iter().zip(&y.data).map(|(x, y)| (a * f64::from(*x) + b * f64::from(*y)) as f32);
    HostTensor::new(x.shape, mixed.collect())
}

#[track_caller]
fn near(what: &str, a: &HostTensor, b: &HostTensor) {
    let error = a.relative_error(b);
    assert!(error < 1e-4, "{what}: {error:.2e}");
}

#[test]
fn what_is_shown_of_a_step_is_what_the_step_was_made_of() {
    for (name, prediction) in [("tiny", Prediction::Epsilon), ("tiny-v", Prediction::V)] {
        let model = model(name);
        for sampler in ["ddim", "euler", "heun", "dpm++2m", "pndm"] {
            let (mut request, config) = request(&model, Some(sampler), 1.0);
            assert_eq!(config.prediction, prediction);
            let unseen = denoise(&model, &request, &mut Kept::default()).expect("latents").latents;
            request.reveal = Some(config.prediction);
            let mut kept = Kept::default();
            let latents = denoise(&model, &request, &mut kept).expect("latents").latents;
            let what = |part: &str| format!("{name} {sampler}: {part}");
            assert_eq!(latents.data, unseen.data, "{}", what("looking changes nothing"));
            assert_eq!(kept.0.len(), request.run.steps.len());
            for (i, Seen { step, level, x, guesses, timestep }) in kept.0.iter().enumerate() {
                assert!(*step == i && (0.0..1000.0).contains(timestep), "step {step} at {timestep}");
                let [without, with, guided] = &guesses[..] else { panic!("three guesses") };
                assert_eq!([without.name, with.name, guided.name], ["unconditional", "conditional", "guided"]);
                for guess in guesses {
                    near(&what(guess.name), &mix(level.signal, &guess.x0, level.noise, &guess.noise), x);
                }
                near(&what("guidance"), &mix(-4.0, &without.noise, 5.0, &with.noise), &guided.noise);
                // ddim goes to the next level with the same noise
                if let ("ddim", Some(next)) = (sampler, kept.0.get(i + 1)) {
                    let there = mix(next.level.signal, &guided.x0, next.level.noise, &guided.noise);
                    near(&what("the next step"), &there, &next.x);
                }
            }
            request.cfg_scale = 1.0;
            let mut kept = Kept::default();
            denoise(&model, &request, &mut kept).expect("latents");
            let names: Vec<_> = kept.0[0].guesses.iter().map(|guess| guess.name).collect();
            assert_eq!(names, ["guided"], "nothing but the prompt is asked about");
        }
    }
}

#[test]
fn a_variation_goes_from_one_seed_to_another() {
    let model = model("tiny");
    let (mut request, _) = request(&model, Some("ddim"), 1.0);
    let latents = |request: &Request| denoise(&model, request, &mut Kept::default()).expect("latents").latents;
    let own = latents(&request);
    let other = latents(&Request { seed: 8, ..request.clone() });
    let mut at = |strength| {
        request.variation = Some(Variation { seed: 8, strength });
        latents(&request)
    };
    near("none of it", &at(0.0), &own);
    near("all of it", &at(1.0), &other);
    let half = at(0.5);
    assert!(half.relative_error(&own) > 0.05 && half.relative_error(&other) > 0.05, "halfway is neither");
}

/// Everything that went to the device.
#[derive(Default)]
struct Loads(Vec<Event>);

impl Watcher for Loads {
    fn event(&mut self, event: Event) {
        if let Event::Loading(..) = event {
            self.0.push(event);
        }
    }
}

#[test]
fn variations_are_drawn_with_one_unet() {
    for name in ["tiny", "tiny-pixels"] {
        let model = model(name);
        let stop = AtomicBool::new(false);
        // one that keeps what the model said before, and one that draws noise at every step
        for sampler in ["pndm", "dpm++2m", "euler_a"] {
            let (mut request, _) = request(&model, Some(sampler), 1.0);
            (request.width, request.height) = (16, 16);
            let variations = [0.0, 0.3, 1.0].map(|strength| Variation { seed: 8, strength });
            let mut loads = Loads::default();
            let all = pipeline::denoise_variations(&Engine::twins(), &model, &request, &variations, &stop, &mut loads);
            let mut once = Loads::default();
            denoise(&model, &request, &mut once).expect("latents");
            assert_eq!(loads.0, once.0, "{name} {sampler}: weights are loaded as for one run");
            for (made, variation) in all.expect("latents").iter().zip(variations) {
                request.variation = Some(variation);
                let alone = denoise(&model, &request, &mut Kept::default()).expect("latents").latents;
                assert!(made.latents == alone, "{name} {sampler}: {variation:?} is what it is alone");
            }
        }
    }
}

#[test]
fn image_space_needs_no_decoder() {
    let model = model("tiny-pixels");
    assert_eq!((model.space(), model.latent_scale(), model.latent_channels()), (Space::Image, 1, 3));
    let (mut request, _) = request(&model, None, 1.0);
    (request.width, request.height) = (13, 9);
    let drawn = pipeline::draw(&Engine::twins(), &model, &request, &AtomicBool::new(false), &mut Kept::default());
    let drawn = drawn.expect("a picture");
    assert_eq!(*drawn.latents.shape, [1, 3, 9, 13]);
    let sample = drawn.latents.clone().channels_last();
    for (byte, value) in drawn.pictures[0].iter().zip(&sample.data) {
        let shade = 255.0 * (value / 2.0 + 0.5).clamp(0.0, 1.0);
        assert!((f32::from(*byte) - shade).abs() < 0.501, "{byte} for {value}");
    }
    // nothing is to be drawn at full strength of a picture that is noise by then, but its trace
    let (mut from, _) = self::request(&model, Some("ddim"), 0.34);
    (from.width, from.height) = (13, 9);
    from.init = Some(picture(13, 9));
    let kept = denoise(&model, &from, &mut Kept::default()).expect("latents").latents;
    let picture = picture(13, 9).tensor().expect("a picture");
    assert!(
        kept.relative_error(&picture) < sample.relative_error(&picture),
        "a little strength stays near the picture"
    );
    for error in [model.vae_graph(1, 8, 8).err(), model.vae_encoder_graph(8, 8).err()] {
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("tiny-pixels") && error.contains("no VAE"), "{error}");
    }
}

#[test]
fn a_unet_is_moved_to_pixels() {
    let latent = model("tiny");
    let shapes = |model: &Model| model.unet.0.values().map(|shape| shape.count()).sum::<usize>();
    let before = shapes(&latent);
    let pixels = latent.on_pixels();
    pixels.check().expect("it fits");
    assert_eq!((pixels.space(), pixels.latent_channels()), (Space::Image, 3));
    // one input channel and one output channel less: 8 kernels of 3x3 each, and a bias
    assert_eq!(shapes(&pixels), before - 2 * 8 * 9 - 1);
}

/// A picture with an edge.
fn picture(width: usize, height: usize) -> Picture {
    let rgb = (0..width * height * 3).map(|i| if i % (width * 3) < width { 220 } else { 30 }).collect();
    Picture { width, height, rgb }
}

#[test]
fn less_strength_stays_nearer_to_the_picture() {
    let model = model("tiny");
    let (engine, stop) = (Engine::twins(), AtomicBool::new(false));
    let zeros = HostTensor::zeros([1, 8, 8, 4]);
    let (mut asked, _) = request(&model, Some("ddim"), 1.0);
    let encoded = asked.stage(&engine, &model, &stop).encode(&picture(64, 64), &zeros, &mut Kept::default());
    let encoded = encoded.expect("latents").latents;
    let distance = |strength| {
        let (mut request, _) = request(&model, Some("ddim"), strength);
        request.init = Some(picture(64, 64));
        denoise(&model, &request, &mut Kept::default()).expect("latents").latents.relative_error(&encoded)
    };
    let (little, all) = (distance(0.34), distance(1.0));
    assert!(little < all, "{little} and {all}");

    asked.init = Some(picture(72, 64));
    let error = denoise(&model, &asked, &mut Kept::default()).expect_err("another size").to_string();
    assert!(error.contains("72x64") && error.contains("64x64"), "{error}");
    asked.init = Some(Picture { rgb: vec![0; 5], ..picture(64, 64) });
    let error = denoise(&model, &asked, &mut Kept::default()).expect_err("too few bytes").to_string();
    assert!(error.contains("5 bytes") && error.contains("12288"), "{error}");
}

#[test]
fn a_batch_from_a_picture_holds_the_pictures_of_its_seeds() {
    let model = model("tiny");
    let (mut request, _) = request(&model, Some("euler_a"), 0.7);
    request.init = Some(picture(64, 64));
    let one = |request: &Request| denoise(&model, request, &mut Kept::default()).expect("latents").latents;
    let both = one(&Request { batch: 2, ..request.clone() });
    let apart = [one(&request).data, one(&Request { seed: 4, ..request.clone() }).data].concat();
    near("a batch", &both, &HostTensor::new(both.shape, apart));
}

#[test]
fn what_can_not_be_done_is_refused() {
    let mut model = model("tiny");
    let (engine, stop) = (Engine::twins(), AtomicBool::new(false));
    let stage = Stage {
        engine: &engine,
        model: &model,
        precision: Precision::F32,
        rules: &Rule::ALL,
        observe: &[],
        stop: &stop,
    };
    let term = |count| (HostTensor::zeros([count]), 1.0);
    for terms in [vec![], vec![term(4); 7], vec![term(4), term(5)]] {
        assert!(stage.sum(&terms).is_err(), "{} terms", terms.len());
    }
    let sum = stage.sum(&[(HostTensor::new([2], vec![1.0, -2.0]), 0.5), (HostTensor::new([2], vec![3.0, 4.0]), 2.0)]);
    assert_eq!(sum.expect("a sum").data, [6.5, 7.0]);
    let bytes = stage.to_bytes(&HostTensor::new([1, 1, 1, 3], vec![-7.0, 0.0, 1.0]));
    assert_eq!(bytes.expect("a pixel"), [0, 128, 255]);

    for (width, height) in [(0, 8), (12, 8), (8, 1 << 40)] {
        let empty = Picture { width, height, rgb: vec![] };
        let error = stage.encode(&empty, &HostTensor::zeros([1, 1, 1, 4]), &mut Kept::default());
        assert!(matches!(error, Err(DiffusionError::Size { .. })), "{width}x{height}");
    }
    let (catalogue, _) = model.vae.as_mut().expect("a VAE");
    catalogue.retain(|key, _| !key.starts_with("encoder.") && !key.starts_with("quant_conv."));
    assert!(!model.has_encoder());
    model.check().expect("a decoder is enough for drawing");
    let error = model.vae_encoder_graph(64, 64).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("tiny") && error.contains("encoder"), "{error}");
}
