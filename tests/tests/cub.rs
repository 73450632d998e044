//! Cub, the model inside the program: that it is the folder `models/cub/`, and that it fits.

use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{self, Drawn, Event, Precision, Request, Watcher};
use ratel_diffusion::random::RandomSource;
use ratel_diffusion::sampling::SamplerChoice;
use ratel_engine::Engine;
use ratel_graph::Rule;
use ratel_tests::repository::root;
use ratel_weights::{Checkpoint, Files};
use std::path::Path;
use std::sync::atomic::AtomicBool;

struct Silent;

impl Watcher for Silent {
    fn event(&mut self, _event: Event) {}
}

fn cub() -> Model {
    let checkpoint = Checkpoint::open(Files::Embedded(ratel_cub::FILES), Path::new(ratel_cub::NAME));
    Model::of_checkpoint(checkpoint.expect("cub opens")).expect("cub is a model")
}

/// Two steps on the twins.
fn draw(model: &Model, prompt: &str, width: usize, height: usize) -> Drawn {
    draw_well(model, prompt, width, height, 2, 1)
}

/// On the twins.
fn draw_well(model: &Model, prompt: &str, width: usize, height: usize, steps: usize, seed: u64) -> Drawn {
    let (_, run) = model.sampler(&SamplerChoice::default(), steps).expect("its own sampler");
    let request = Request {
        prompt: prompt.to_owned(),
        negative_prompt: String::new(),
        width,
        height,
        run,
        cfg_scale: model.defaults.guidance_scale,
        guidance_rescale: model.defaults.guidance_rescale,
        seed,
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
    pipeline::draw(&Engine::twins(), model, &request, &AtomicBool::new(false), &mut Silent).expect("a picture")
}

#[test]
fn inside_is_the_folder() {
    let (inside, folder) = (cub(), Model::open(&root().join("models/cub")).expect("the folder opens"));
    assert_eq!((inside.name.as_str(), folder.name.as_str()), ("cub", "cub"));
    assert_eq!(inside.defaults, folder.defaults);
    let [a, b] = [&inside, &folder].map(|model| draw(model, "a red dragon", 64, 64));
    assert!(a.pictures == b.pictures && a.latents.data == b.latents.data, "one model draws one picture");
    let other = draw(&inside, "a blue fish", 64, 64);
    assert!(a.pictures != other.pictures, "another prompt, another picture");
}

#[test]
fn it_fits() {
    let cub = cub();
    cub.check().expect("every tensor that the architecture needs, and no other");
    assert_eq!((cub.native_latents * cub.latent_scale(), cub.latent_channels()), (128, 4));
    assert_eq!(cub.tokenizer.max_length(), 77);
    let tokens = cub.text.0["embeddings.token_embedding.weight"][0];
    assert_eq!(cub.tokenizer.vocab_size(), tokens, "a row of the table for every token");
    // any text can be asked for
    for prompt in ["", "a honey badger under a red star", "🦡 雪 naïve\u{301}\n", "<|endoftext|>", &"word ".repeat(500)]
    {
        let ids = cub.tokenizer.encode(prompt).expect("tokens").ids;
        assert!(ids.len() == 77 && ids.iter().all(|id| (*id as usize) < tokens), "{prompt:.40}: {ids:?}");
    }
    // sizes beyond the square that it was trained on
    for (width, height) in [(136, 72), (8, 8), (64, 192)] {
        let drawn = draw(&cub, "a boat", width, height);
        assert_eq!(drawn.pictures[0].len(), 3 * width * height);
        assert!(drawn.latents.data.iter().all(|value| value.is_finite()), "{width}x{height}");
    }
}

/// What lies beside it, if the program was built with it: a model of pictures themselves, which knows cub's words.
#[test]
fn the_model_of_image_space_fits() {
    if !ratel_cub::has(ratel_cub::PIXELS) {
        return;
    }
    let checkpoint = Checkpoint::open(Files::Embedded(ratel_cub::FILES), Path::new(ratel_cub::PIXELS));
    let pixels = Model::of_checkpoint(checkpoint.expect("it opens")).expect("it is a model");
    pixels.check().expect("every tensor that the architecture needs, and no other");
    assert_eq!((pixels.space(), pixels.native_latents, pixels.latent_channels()), (Space::Image, 32, 3));
    let ids = |model: &Model| model.tokenizer.encode("a honey badger under a red star").expect("tokens").ids;
    assert_eq!((ids(&pixels), &pixels.text.0), (ids(&cub()), &cub().text.0));
    let drawn = draw(&pixels, "a red dragon", 32, 32);
    assert_eq!(drawn.pictures[0].len(), 3 * 32 * 32);
    assert!(drawn.pictures != draw(&pixels, "a blue fish", 32, 32).pictures, "another prompt, another picture");
}

/// The share of a picture's pixels, RGB, of which `is` is true.
fn share(picture: &[u8], is: impl Fn(&[u8]) -> bool) -> f64 {
    let pixels = picture.chunks_exact(3);
    let total = pixels.len();
    pixels.filter(|pixel| is(pixel)).count() as f64 / total as f64
}

#[test]
fn it_draws_what_is_asked() {
    let cub = cub();
    let steps = cub.defaults.steps;
    let red = |p: &[u8]| p[0] > 150 && p[1] < 90 && p[2] < 90;
    let purple = |p: &[u8]| p[0] > 90 && p[1] < 90 && p[2] > 130;
    for seed in [1, 2, 3] {
        let look = |prompt: &str| draw_well(&cub, prompt, 128, 128, steps, seed).pictures.remove(0);
        let (a, b) = (look("a big red balloon over a hill by day"), look("a big purple balloon over a hill by day"));
        for (name, picture, own, other) in
            [("red", &a, share(&a, red), share(&a, purple)), ("purple", &b, share(&b, purple), share(&b, red))]
        {
            assert!(
                own > 0.04 && other < 0.005,
                "seed {seed}, {name}: {own:.3} of it has its colour, {other:.3} the other's"
            );
            // by day, above the hill, most of the sky is light blue
            let sky = share(&picture[..3 * 128 * 24], |p| p[2] > 180 && p[2] >= p[0]);
            assert!(sky > 0.4, "seed {seed}, {name}: {sky:.3} of the sky is blue");
        }
        let night = look("a red balloon over a hill at night");
        let dark = share(&night[..3 * 128 * 24], |p| p.iter().all(|value| *value < 110));
        assert!(dark > 0.4, "seed {seed}: {dark:.3} of the sky is dark at night");
    }
}
