//! Properties that hold for every sampler, whatever the numbers, and the reading of names and configs.

use proptest::prelude::*;
use ratel_diffusion::sampling::{
    Action, FinalSigma, MOST_TERMS, Prediction, Reg, Run, Sampler, SamplerChoice, SamplerConfig, SamplerError,
    Schedule, SchedulerFile, SolverType, plan, run_on_host, start_for_strength,
};
use ratel_diffusion::schedule::{NoiseSchedule, SigmaCurve, Spacing};
use serde_json::json;

fn settings(sampler: Sampler, schedule: Schedule, prediction: Prediction) -> Result<SamplerConfig, SamplerError> {
    let choice = SamplerChoice {
        sampler: Some(sampler),
        schedule: Some(schedule),
        prediction: Some(prediction),
        ..SamplerChoice::default()
    };
    SamplerConfig::resolve(&SchedulerFile::stable_diffusion(), &choice)
}

/// Every combination that is not refused.
fn all_settings() -> Vec<SamplerConfig> {
    let mut found = Vec::new();
    for sampler in Sampler::all() {
        for schedule in Schedule::all() {
            for prediction in [Prediction::Epsilon, Prediction::V, Prediction::Sample] {
                found.extend(settings(sampler, schedule, prediction));
            }
        }
    }
    assert!(found.len() > 200, "{} combinations", found.len());
    found
}

const POINT: [f32; 4] = [0.7, -1.2, 0.05, 2.0];

/// The level (alpha, sigma) with alpha^2 + sigma^2 = 1 that each call's input has.
fn call_levels(run: &Run, schedule: &NoiseSchedule) -> Vec<(f64, f64)> {
    let mut levels = Vec::new();
    for step in &run.steps {
        let calls = step.actions.iter().filter_map(|action| match action {
            Action::Model(call) => Some(call),
            _ => None,
        });
        for (i, call) in calls.enumerate() {
            let alpha = match (call.input_scale, i) {
                (1.0, 0) => step.level.signal / step.level.signal.hypot(step.level.noise),
                (1.0, _) => f64::from(schedule.alphas_cumprod[call.timestep as usize]).sqrt(),
                (scale, _) => scale,
            };
            levels.push((alpha, (1.0 - alpha * alpha).sqrt()));
        }
    }
    levels
}

/// Runs with the perfect model of a world that holds one image only: it reads the noise off its input.
fn run_with_perfect_model(run: &Run, config: &SamplerConfig) -> Vec<f32> {
    let schedule = NoiseSchedule::new(&config.betas).expect("a schedule");
    let mut levels = call_levels(run, &schedule).into_iter();
    let model = |input: &[f32], _| {
        let (alpha, sigma) = levels.next().expect("a level for each call");
        let answer = |(x, x0): (&f32, &f32)| {
            let (x, x0) = (f64::from(*x), f64::from(*x0));
            let epsilon = (x - alpha * x0) / sigma;
            match config.prediction {
                Prediction::Epsilon => epsilon as f32,
                Prediction::V => (alpha * epsilon - sigma * x0) as f32,
                Prediction::Sample => x0 as f32,
            }
        };
        input.iter().zip(&POINT).map(answer).collect()
    };
    let mut draws = 0_u64;
    let mut noise = |length: usize| {
        draws += 1;
        (0..length as u64).map(|i| ((draws * 7 + i * 13) as f32).sin() * 1.4).collect::<Vec<f32>>()
    };
    let scale = run.initial_noise_scale as f32;
    let x: Vec<f32> = noise(POINT.len()).into_iter().map(|value| value * scale).collect();
    run_on_host(run, x, model, noise).expect("a run")
}

#[test]
fn a_perfect_model_of_one_image_is_sampled_exactly() {
    for config in all_settings() {
        // pndm extrapolates the model's answers, and velocities of different levels are not on one line as noise is.
        if (config.sampler, config.prediction) == (Sampler::Pndm, Prediction::V) {
            continue;
        }
        // These end at timestep 0, where some noise is left, the others at no noise.
        let ends_in_noise = matches!(config.sampler, Sampler::Ddim | Sampler::Pndm | Sampler::Tcd | Sampler::Deis);
        let noise_left = if ends_in_noise { 0.0292 } else { 0.0 };
        for steps in [6, 20, 30] {
            let Ok(run) = plan(&config, steps, 0) else { continue };
            for (a, b) in run_with_perfect_model(&run, &config).iter().zip(&POINT) {
                let what = (config.sampler.name(), config.curve, config.spacing, config.prediction, steps);
                assert!((a - b).abs() < 2e-4 + 2.0 * noise_left, "{what:?}: {a} instead of {b}");
            }
        }
    }
}

#[test]
fn programs_are_well_formed() {
    for config in all_settings() {
        for steps in [1, 2, 3, 5, 20, 50] {
            let Ok(run) = plan(&config, steps, 0) else { continue };
            assert_eq!(run.steps.len(), steps, "{}", config.sampler.name());
            check_program(&run);
        }
    }
}

/// Reads follow writes, terms are few and distinct, and levels fall.
fn check_program(run: &Run) {
    let mut written = vec![Reg::X];
    for action in run.actions() {
        match action {
            Action::Model(call) => {
                assert!(written.contains(&call.from), "{:?} is read before it is written", call.from);
                assert!(call.input_scale > 0.0 && call.timestep >= 0.0);
                written.push(Reg::Model);
            }
            Action::Noise => written.push(Reg::Noise),
            Action::Combine(combine) => {
                assert!(combine.terms.len() <= MOST_TERMS);
                for (i, (reg, coefficient)) in combine.terms.iter().enumerate() {
                    assert!(written.contains(reg), "{reg:?} is read before it is written");
                    assert!(*coefficient != 0.0 && (*coefficient as f32).is_finite());
                    assert!(combine.terms[..i].iter().all(|(other, _)| other != reg), "{reg:?} occurs twice");
                }
                written.push(combine.to);
            }
        }
    }
    for pair in run.steps.windows(2) {
        assert!(pair[1].level.sigma() <= pair[0].level.sigma() * 1.000_001, "noise does not grow");
    }
    for reg in run.registers() {
        assert!(written.contains(&reg));
    }
}

#[test]
fn numbers_of_steps() {
    let refused = |result: Result<Run, SamplerError>| matches!(result, Err(SamplerError::OutOfRange { .. }));
    for sampler in Sampler::all() {
        let config = settings(sampler, Schedule::Normal, Prediction::Epsilon).expect("settings");
        assert!(refused(plan(&config, 0, 0)), "{}: 0", sampler.name());
        assert!(refused(plan(&config, 1001, 0)), "{}: 1001", sampler.name());
        assert!(refused(plan(&config, usize::MAX, 0)), "{}: all", sampler.name());
        assert!(refused(plan(&config, 20, 20)), "{}: none left", sampler.name());
        let one = plan(&config, 1, 0).expect("one step");
        assert_eq!(one.steps.len(), 1, "{}", sampler.name());
        check_program(&one);
        // With spacing and offset that stay inside, a thousand work too; lcm and tcd have but fifty timesteps, and
        // 1000 of 1000 timesteps and an end besides do not exist for the solvers.
        let trailing = SamplerConfig { spacing: Spacing::Trailing, ..config };
        match plan(&trailing, 1000, 0) {
            Ok(run) => check_program(&run),
            Err(error) => assert!(matches!(sampler, Sampler::Lcm | Sampler::Tcd), "{}: {error}", sampler.name()),
        }
    }
}

#[test]
fn image_to_image_begins_where_diffusers_begins() {
    assert_eq!(start_for_strength(20, 0.75), 5);
    assert_eq!(start_for_strength(20, 0.8), 4);
    assert_eq!(start_for_strength(50, 1.0), 0);
    assert_eq!(start_for_strength(50, 7.0), 0);
    assert_eq!(start_for_strength(50, 0.0), 50);
    assert_eq!(start_for_strength(50, f64::NAN), 50);
}

#[test]
fn names_of_all_programs() {
    use Sampler::*;
    let cases: &[(&str, Sampler, Option<Schedule>)] = &[
        // stable-diffusion.cpp
        ("euler", Euler, None),
        ("euler_a", EulerA, None),
        ("heun", Heun, None),
        ("dpm2", Dpm2, None),
        ("dpm++2m", Dpmpp2m, None),
        ("lcm", Lcm, None),
        ("ddim_trailing", Ddim, Some(Schedule::SgmUniform)),
        ("tcd", Tcd, None),
        // AUTOMATIC1111
        ("Euler a", EulerA, None),
        ("LMS", Lms, None),
        ("LMS Karras", Lms, Some(Schedule::Karras)),
        ("DPM++ 2M", Dpmpp2m, None),
        ("DPM++ 2M Karras", Dpmpp2m, Some(Schedule::Karras)),
        ("DPM++ 2M SDE Karras", Dpmpp2mSde, Some(Schedule::Karras)),
        ("DPM++ 2M SDE Exponential", Dpmpp2mSde, Some(Schedule::Exponential)),
        ("DPM++ 3M SDE", Dpmpp3mSde, None),
        ("DPM++ SDE Karras", DpmppSde, Some(Schedule::Karras)),
        ("DPM2 a Karras", Dpm2A, Some(Schedule::Karras)),
        ("DDIM", Ddim, None),
        ("PLMS", Pndm, None),
        ("UniPC", Unipc, None),
        // ComfyUI
        ("euler_ancestral", EulerA, None),
        ("dpm_2", Dpm2, None),
        ("dpm_2_ancestral", Dpm2A, None),
        ("dpmpp_sde", DpmppSde, None),
        ("dpmpp_2m", Dpmpp2m, None),
        ("dpmpp_2m_sde", Dpmpp2mSde, None),
        ("dpmpp_2m_sde_gpu", Dpmpp2mSde, None),
        ("dpmpp_3m_sde", Dpmpp3mSde, None),
        ("uni_pc", Unipc, None),
        ("uni_pc_bh2", Unipc, None),
        ("ddpm", Ddpm, None),
        // diffusers and k-diffusion
        ("EulerAncestralDiscreteScheduler", EulerA, None),
        ("DPMSolverMultistepScheduler", Dpmpp2m, None),
        ("k_euler_a", EulerA, None),
        ("sample_dpmpp_2m", Dpmpp2m, None),
        ("k_lms", Lms, None),
    ];
    for (name, sampler, schedule) in cases {
        assert_eq!(Sampler::parse(name).expect(name), (*sampler, *schedule), "{name}");
    }
    for sampler in Sampler::all() {
        assert_eq!(Sampler::parse(sampler.name()).expect("its own name"), (sampler, None));
    }
    for schedule in Schedule::all() {
        assert_eq!(Schedule::parse(schedule.name()).expect("its own name"), schedule);
    }
    assert_eq!(Schedule::parse("SGM Uniform").expect("a name"), Schedule::SgmUniform);
    assert_eq!(Schedule::parse("discrete").expect("a name"), Schedule::Normal);
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let message = Sampler::parse("eulr_a").expect_err("no such name").to_string();
    assert!(message.contains("`eulr_a`; did you mean `euler_a`?") && message.contains("dpm++2m_sde"), "{message}");
    let message = Schedule::parse("karas").expect_err("no such name").to_string();
    assert!(message.contains("did you mean `karras`?"), "{message}");
    for name in ["dpm++2s_a", "dpm++2mv2", "ipndm", "ipndm_v", "DPM adaptive", "Restart"] {
        let message = Sampler::parse(name).expect_err("absent").to_string();
        assert!(message.contains("not in Ratel") && message.contains("euler"), "{message}");
    }
}

/// A scheduler_config.json of this text.
fn file(text: &str) -> SchedulerFile {
    SchedulerFile::from_value(serde_json::from_str(text).expect("JSON")).expect("a config")
}

#[test]
fn configs_are_read_as_diffusers_reads_them() {
    let read = |text: &str, choice: SamplerChoice| SamplerConfig::resolve(&file(text), &choice).expect("settings");
    let choose = |sampler| SamplerChoice { sampler: Some(sampler), ..SamplerChoice::default() };

    // Absent keys: each class's own default.
    let ddim = read("{}", choose(Sampler::Ddim));
    assert_eq!((ddim.clip_sample, ddim.set_alpha_to_one, ddim.spacing), (Some(1.0), true, Spacing::Leading));
    assert_eq!((ddim.betas.start, ddim.betas.end), (0.0001, 0.02));
    let lcm = read("{}", choose(Sampler::Lcm));
    assert_eq!((lcm.clip_sample, lcm.betas.start), (None, 0.00085));
    let pndm = read("{}", SamplerChoice::default());
    assert_eq!((pndm.sampler, pndm.skip_prk_steps, pndm.set_alpha_to_one), (Sampler::Pndm, false, false));
    assert_eq!(read("{}", choose(Sampler::Euler)).spacing, Spacing::Linspace);

    // `_class_name` chooses; keys that the class lacks are ignored.
    let dpm = r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++",
        "use_karras_sigmas": true, "lambda_min_clipped": null, "solver_order": 3, "final_sigmas_type": "sigma_min",
        "rescale_betas_zero_snr": true, "solver_type": "bh2", "note": "of no class"}"#;
    let sde = read(dpm, SamplerChoice::default());
    assert_eq!((sde.sampler, sde.curve, sde.solver_order), (Sampler::Dpmpp2mSde, SigmaCurve::Karras, 3));
    assert_eq!((sde.final_sigma, sde.solver_type), (FinalSigma::SigmaMin, SolverType::Midpoint));
    assert!(sde.betas.zero_terminal_snr);
    let heun = read(dpm, choose(Sampler::Heun));
    assert_eq!((heun.curve, heun.final_sigma), (SigmaCurve::Karras, FinalSigma::Zero));
    assert!(!heun.betas.zero_terminal_snr);
    assert_eq!(read(dpm, choose(Sampler::EulerA)).curve, SigmaCurve::Timesteps);
    assert_eq!(read(dpm, choose(Sampler::Ddim)).curve, SigmaCurve::Timesteps);

    // What the command line says wins.
    let normal = SamplerChoice { schedule: Some(Schedule::Normal), ..SamplerChoice::default() };
    assert_eq!(read(dpm, normal).curve, SigmaCurve::Timesteps);

    // Defaults that a file lists as never set give way to the class's own.
    let unset = r#"{"clip_sample": false, "_use_default_values": ["clip_sample"]}"#;
    assert_eq!(read(unset, choose(Sampler::Ddim)).clip_sample, Some(1.0));
}

#[test]
fn what_is_not_supported_is_refused() {
    let refuse = |text: &str, part: &str| {
        let message = SamplerConfig::resolve(&file(text), &SamplerChoice::default()).expect_err(text).to_string();
        assert!(message.contains(part), "{message}");
    };
    refuse(r#"{"_class_name": "DDIMScheduler", "thresholding": true}"#, "thresholding");
    refuse(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, "unknown sampler");
    refuse(r#"{"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}"#, "timestep_type");
    refuse(r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#, "algorithm_type");
    refuse(r#"{"_class_name": "DDPMScheduler", "variance_type": "learned_range"}"#, "variance_type");
    refuse(r#"{"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true}"#, "use_flow_sigmas");
    refuse(r#"{"_class_name": "UniPCMultistepScheduler", "solver_order": 9}"#, "solver_order");
    refuse(r#"{"beta_schedule": "sigmoid"}"#, "beta_schedule");
    refuse(r#"{"prediction_type": "flow_prediction"}"#, "prediction type");
    refuse(r#"{"_class_name": "PNDMScheduler", "prediction_type": "sample"}"#, "pndm");
    refuse(
        r#"{"_class_name": "LMSDiscreteScheduler", "use_karras_sigmas": true, "use_beta_sigmas": true}"#,
        "only one",
    );
    assert!(SchedulerFile::from_value(json!({"steps_offset": -1})).is_err());
    let message = settings(Sampler::Ddim, Schedule::Karras, Prediction::Epsilon).expect_err("no curve").to_string();
    assert!(message.contains("ddim") && message.contains("karras"), "{message}");
    // Zero terminal SNR leaves nothing for a model that predicts noise to divide by.
    let choice = SamplerChoice {
        sampler: Some(Sampler::Ddim),
        spacing: Some(Spacing::Trailing),
        zero_terminal_snr: Some(true),
        ..SamplerChoice::default()
    };
    let config = SamplerConfig::resolve(&SchedulerFile::stable_diffusion(), &choice).expect("settings");
    assert!(matches!(plan(&config, 20, 0), Err(SamplerError::NotFinite { step: 0 })));
}

proptest! {
    /// Absurd settings are refused or planned, but never panic.
    #[test]
    fn any_config_is_survived(
        sampler in 0..18_usize,
        schedule in 0..8_usize,
        prediction in 0..3_usize,
        train_steps in prop_oneof![Just(0_usize), Just(1), Just(2), 2..50_usize, Just(1000), Just(usize::MAX)],
        betas in (prop_oneof![Just(0.0), -1.0..2.0, Just(f64::NAN), Just(f64::INFINITY)], -0.5..1.5),
        offset in prop_oneof![0..5_usize, Just(usize::MAX)],
        (steps, start) in (0..60_usize, 0..4_usize),
        sigmas in (proptest::option::of(-1.0..1e7), proptest::option::of(prop_oneof![Just(0.0), 0.001..100.0])),
        flags in any::<[bool; 7]>(),
        order in 0..5_usize,
        lambda in prop_oneof![Just(f64::NEG_INFINITY), -10.0..10.0, Just(f64::INFINITY)],
        eta in prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN), -1.0..3.0],
    ) {
        let prediction = ["epsilon", "v_prediction", "sample"][prediction];
        let file = SchedulerFile {
            num_train_timesteps: Some(train_steps),
            beta_start: Some(betas.0),
            beta_end: Some(betas.1),
            beta_schedule: Some(if flags[0] { "scaled_linear" } else { "squaredcos_cap_v2" }.into()),
            prediction_type: Some(prediction.into()),
            steps_offset: Some(offset),
            sigma_min: sigmas.1,
            sigma_max: sigmas.0,
            rescale_betas_zero_snr: Some(flags[1]),
            final_sigmas_type: Some(if flags[2] { "zero" } else { "sigma_min" }.into()),
            lower_order_final: Some(flags[3]),
            skip_prk_steps: Some(flags[4]),
            predict_x0: Some(flags[5]),
            solver_type: Some(if flags[6] { "heun" } else { "bh1" }.into()),
            solver_order: Some(order),
            lambda_min_clipped: Some(lambda),
            original_inference_steps: Some(order * 10),
            clip_sample: Some(flags[6]),
            ..SchedulerFile::default()
        };
        let choice = SamplerChoice {
            sampler: Sampler::all().nth(sampler),
            schedule: Schedule::all().nth(schedule),
            eta: Some(eta),
            ..SamplerChoice::default()
        };
        if let Ok(config) = SamplerConfig::resolve(&file, &choice)
            && let Ok(run) = plan(&config, steps, start)
        {
            run_on_host(&run, vec![1.0; 3], |x, _| x.to_vec(), |n| vec![0.5; n]).expect("a run");
        }
    }

    /// Any text is a name, if not a valid one.
    #[test]
    fn any_name_is_survived(name in ".{0,80}") {
        let _ = (Sampler::parse(&name), Schedule::parse(&name));
        let _ = SchedulerFile::from_value(json!({"_class_name": name, "prediction_type": name}));
    }
}
