//! Every sampler against diffusers' scheduler of the same name, call by call (tests/fixtures/README.md).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ratel_diffusion::sampling::{
    Action, Run, Sampler, SamplerChoice, SamplerConfig, Schedule, SchedulerFile, plan, run_on_host,
};
use ratel_diffusion::schedule::{Betas, NoiseSchedule};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Map, Value};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/schedulers");

/// The largest difference allowed, as a share of the largest value compared. Both sides compute in f32.
const TOLERANCE: f64 = 1e-5;

/// Cases whose reference is itself further than that from its own formulas, evaluated in f64: tolerance of the latents,
/// tolerance of the timesteps, and where the digits go.
const ROUNDED_BY_THE_REFERENCE: [(&str, f64, f64); 3] = [
    // The first step comes down from sigma 4096 to 15 by adding two large f32 numbers: 2e-5 is lost.
    ("euler,normal,8,rescale_betas_zero_snr=True,timestep_spacing=trailing,prediction_type=v_prediction", 4e-5, 1e-3),
    ("euler,normal,8,rescale_betas_zero_snr=True,timestep_spacing=trailing,prediction_type=sample", 4e-5, 1e-3),
    // sigma_down = sqrt(to^2 - up^2), where up^2 is to^2 but for four parts in a million.
    ("dpm2_a,normal,2", 4e-5, 2e-2),
];

#[derive(Deserialize)]
struct Fixtures {
    config: Map<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    sampler: String,
    schedule: String,
    steps: usize,
    start: usize,
    overrides: Map<String, Value>,
    step_arguments: Map<String, Value>,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
    input_scales: Vec<f64>,
    noise_draws: Vec<usize>,
}

struct Tensors(BTreeMap<String, Vec<f32>>);

impl Tensors {
    fn read() -> Tensors {
        let bytes = std::fs::read(format!("{FOLDER}/schedulers.safetensors")).expect("the fixture file");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Tensors(file.iter().map(|(name, view)| (name.to_string(), floats(view.data()))).collect())
    }

    fn get(&self, name: &str) -> &[f32] {
        self.0.get(name).unwrap_or_else(|| panic!("{name} in the fixture"))
    }

    /// Row `index` of a tensor of latents.
    fn row(&self, name: &str, index: usize) -> &[f32] {
        let length = self.get("image").len();
        &self.get(name)[index * length..][..length]
    }
}

fn fixtures() -> Fixtures {
    let text = std::fs::read_to_string(format!("{FOLDER}/schedulers.json")).expect("the fixture list");
    serde_json::from_str(&text).expect("cases")
}

impl Case {
    /// As a checkpoint's file and a command line would give it.
    fn config(&self, shared: &Map<String, Value>) -> SamplerConfig {
        let mut keys = shared.clone();
        keys.extend(self.overrides.clone());
        let file = SchedulerFile::from_value(Value::Object(keys)).expect("a config");
        let (sampler, none) = Sampler::parse(&self.sampler).expect("a sampler");
        assert_eq!(none, None);
        let schedule = match self.schedule.as_str() {
            "normal" => None,
            name => Some(Schedule::parse(name).expect("a schedule")),
        };
        let eta = self.step_arguments.get("eta").and_then(Value::as_f64);
        let choice = SamplerChoice { sampler: Some(sampler), schedule, eta, ..SamplerChoice::default() };
        SamplerConfig::resolve(&file, &choice).expect("settings")
    }

    /// The largest error of the run's latents, as a share of the largest value before or after the call that it is in
    /// (an update cannot be more exact than the rounding of what it starts from); and of its timesteps.
    fn errors(&self, run: &Run, tensors: &Tensors) -> (f64, f64) {
        let timesteps_apart = Cell::new(0.0_f64);
        let samples = format!("samples/{}", self.name);
        let worst = RefCell::new(0.0_f64);
        let compare = |ours: &[f32], call: usize, scale: f64| {
            let theirs: Vec<f64> = tensors.row(&samples, call).iter().map(|v| f64::from(*v) * scale).collect();
            let around = tensors.row(&samples, call).iter().chain(tensors.row(&samples, call.saturating_sub(1)));
            let most = around.fold(0.0_f64, |most, v| most.max(f64::from(v.abs()))) * scale;
            let differences = ours.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs() / most);
            let error = differences.fold(0.0, f64::max);
            let mut worst = worst.borrow_mut();
            *worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
        };

        let mut draws = 0;
        let noise = |_| {
            draws += 1;
            tensors.row("step_noise", draws - 1).to_vec()
        };
        let mut call = 0;
        let model = |input: &[f32], timestep: f32| {
            let expected = self.timesteps[call];
            timesteps_apart.set(timesteps_apart.get().max((f64::from(timestep) - expected).abs()));
            compare(input, call, self.input_scales[call]);
            call += 1;
            tensors.row("model_outputs", call - 1).to_vec()
        };
        let level = run.steps[0].level;
        let (signal, noise_scale) = match self.start {
            0 => (0.0, run.initial_noise_scale),
            _ => (level.signal, level.noise),
        };
        let start = tensors.get("image").iter().zip(tensors.get("start_noise"));
        let x = start.map(|(image, noise)| signal as f32 * image + noise_scale as f32 * noise).collect();
        let end = run_on_host(run, x, model, noise).expect("a run");
        compare(&end, self.timesteps.len(), 1.0);
        assert_eq!(call, self.timesteps.len(), "{}: calls", self.name);
        (worst.into_inner(), timesteps_apart.get())
    }
}

#[test]
fn every_case_equals_diffusers() {
    let (fixtures, tensors) = (fixtures(), Tensors::read());
    let mut worst: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in &fixtures.cases {
        let run = match plan(&case.config(&fixtures.config), case.steps, case.start) {
            Ok(run) => run,
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        let (error, timesteps) = case.errors(&run, &tensors);
        let relative = (run.initial_noise_scale / case.init_noise_sigma - 1.0).abs();
        let entry = worst.entry(&case.sampler).or_default();
        *entry = (entry.0.max(error), entry.1 + 1);
        let excused = ROUNDED_BY_THE_REFERENCE.iter().find(|(name, _, _)| *name == case.name);
        let (tolerance, timestep_tolerance) =
            excused.map_or((TOLERANCE, 1e-3), |(_, latents, times)| (*latents, *times));
        if error > tolerance || timesteps > timestep_tolerance || relative > 1e-6 {
            failures.push(format!(
                "{}: error {error:.1e}, timesteps {timesteps:.1e}, initial noise {relative:.1e}",
                case.name
            ));
        }
        let draws: usize = case.noise_draws.iter().sum();
        if run.noise_draws() != draws {
            failures.push(format!("{}: {} draws instead of {draws}", case.name, run.noise_draws()));
        }
    }
    let table: Vec<String> = worst.iter().map(|(name, (error, n))| format!("{name}: {n} cases, {error:.1e}")).collect();
    assert!(failures.is_empty(), "{}\n\n{}", failures.join("\n"), table.join("\n"));
    assert!(fixtures.cases.len() > 200, "the fixture holds all cases");
}

#[test]
fn alphas_equal_diffusers() {
    let (fixtures, tensors) = (fixtures(), Tensors::read());
    let ddim = fixtures.cases.iter().find(|case| case.sampler == "ddim").expect("a ddim case");
    let betas = ddim.config(&fixtures.config).betas;
    let plain = NoiseSchedule::new(&betas).expect("a schedule");
    assert_eq!(plain.alphas_cumprod, tensors.get("alphas_cumprod"), "bit for bit");
    let rescaled = NoiseSchedule::new(&Betas { zero_terminal_snr: true, ..betas }).expect("a schedule");
    let theirs = tensors.get("alphas_cumprod_zero_snr");
    for (t, (a, b)) in rescaled.alphas_cumprod.iter().zip(theirs).enumerate() {
        // The rescaling shifts the roots, and torch's square root is not correctly rounded on every machine.
        assert!((a.sqrt() - b.sqrt()).abs() <= 2e-7, "abar {t}: {a} against {b}");
    }
}

#[test]
fn noise_is_drawn_where_diffusers_draws_it() {
    let fixtures = fixtures();
    for case in &fixtures.cases {
        let Ok(run) = plan(&case.config(&fixtures.config), case.steps, case.start) else { continue };
        let mut draws = Vec::new();
        for action in run.actions() {
            match action {
                Action::Model(_) => draws.push(0),
                Action::Noise => *draws.last_mut().expect("a call before noise") += 1,
                Action::Combine(_) => {}
            }
        }
        assert_eq!(draws, case.noise_draws, "{}", case.name);
    }
}
