//! Random normals against torch's own, and against the published first values of AUTOMATIC1111's "NV" source.

use ratel_diffusion::random::{Generator, PhiloxGenerator, RandomSource, TorchGenerator};
use serde::Deserialize;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/random/torch.json");

#[derive(Deserialize)]
struct Case {
    seed: i128,
    draws: Vec<Vec<f32>>,
}

fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < 2e-6, "{what}, element {i}: {a} against {b}");
    }
}

#[test]
fn draws_equal_torch() {
    let text = std::fs::read_to_string(FILE).expect("the fixture");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("cases");
    assert!(cases.len() > 20);
    for case in cases {
        let mut generator = TorchGenerator::new(case.seed as u64);
        for (i, draw) in case.draws.iter().enumerate() {
            let what = format!("seed {}, draw {i} of {}", case.seed, draw.len());
            assert_close(&generator.normal(draw.len()), draw, &what);
        }
    }
}

/// Published digits, good to half a unit of the last.
fn assert_begins(ours: &[f32], theirs: &[f32], unit: f32) {
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= 0.51 * unit, "{a} against {b}");
    }
}

#[test]
fn published_values() {
    let latent = TorchGenerator::new(42).normal(16384);
    assert_begins(&latent, &[1.9269, 1.4873, 0.9007, -2.1055, 0.6784, -1.2345, -0.0431, -1.6047], 1e-4);
    assert_begins(&TorchGenerator::new(42).normal(4), &[0.3367, 0.1288, 0.2345, 0.2303], 1e-4);
    assert_begins(&PhiloxGenerator::new(0).normal(4), &[-0.92466, -0.42534, -2.64385, 0.14518], 1e-5);
    assert_begins(&PhiloxGenerator::new(42).normal(4), &[0.19402, 2.16137, -0.17205, 0.84906], 1e-5);
}

#[test]
fn philox_calls_are_streams_of_their_own() {
    let mut generator = Generator::new(RandomSource::Philox, 7);
    let (first, second) = (generator.normal(64), generator.normal(64));
    assert_ne!(first, second);
    assert_eq!(PhiloxGenerator::new(7).normal(32), first[..32], "an element does not depend on how many there are");
}

#[test]
fn long_draws_are_standard_normal() {
    for source in [RandomSource::Torch, RandomSource::Philox] {
        let count = 1 << 18;
        let values: Vec<f64> = Generator::new(source, 3).normal(count).into_iter().map(f64::from).collect();
        let moment = |power| values.iter().map(|v| v.powi(power)).sum::<f64>() / count as f64;
        // Five standard errors of each moment's estimate.
        assert!(moment(1).abs() < 5.0 * (1.0 / count as f64).sqrt(), "{source:?}: mean");
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / count as f64).sqrt(), "{source:?}: variance");
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / count as f64).sqrt(), "{source:?}: fourth moment");
        assert!(values.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn nothing_to_draw() {
    for source in [RandomSource::Torch, RandomSource::Philox] {
        assert_eq!(Generator::new(source, 0).normal(0), Vec::<f32>::new());
    }
}
