//! UniPC (arXiv:2302.04867): a multistep predictor, and a corrector that redoes the last step once the model has
//! answered at its end, at no further call. Source: scheduling_unipc_multistep.py.

use super::levels::{Levels, Vp};
use super::program::{Linear, Recorder, Reg, Run};
use super::{SamplerConfig, SamplerError, SolverType};

/// Where the last step began, after correction.
const BASE: Reg = Reg::Scratch(0);

/// Answers rotate: an update sees up to three earlier ones beside the newest.
fn history(index: usize) -> Reg {
    Reg::History((index % 4) as u8)
}

/// Plans a run of order `config.solver_order`.
pub(super) fn unipc(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let levels = Levels::whole(config, steps)?;
    let places: Vec<Vp> = levels.sigmas.iter().map(|&sigma| Vp::at(sigma)).collect();
    let mut recorder = Recorder::default();
    let mut last_order = 0;
    for index in start..steps {
        let here = places[index];
        recorder.step(here.alpha, here.sigma);
        recorder.model(Reg::X, 1.0, levels.timesteps[index]);
        // The answer belongs to the latent that the model saw, before it is corrected.
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.alpha, here.sigma);
        let answer = if config.predict_x0 { halves.x0 } else { halves.epsilon };
        recorder.set(history(index), answer);
        if index > start && !config.disable_corrector.contains(&(index - 1)) {
            let value = update(config, &places, index - 1, last_order, true);
            recorder.set(BASE, value);
        } else {
            recorder.set(BASE, Reg::X.into());
        }
        let order = if config.lower_order_final { config.solver_order.min(steps - index) } else { config.solver_order };
        last_order = order.min(index - start + 1);
        let value = update(config, &places, index, last_order, false);
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// The step from `places[from]` to the next, starting at [`BASE`]. The corrector also uses the answer at its end.
fn update(config: &SamplerConfig, places: &[Vp], from: usize, order: usize, correct: bool) -> Linear {
    let (here, to) = (places[from], places[from + 1]);
    let h = to.lambda - here.lambda;
    // In the image x shrinks by sigma and the answers weigh alpha; in the noise the other way round.
    let (hh, kept, weight) = match config.predict_x0 {
        true => (-h, to.sigma / here.sigma, to.alpha),
        false => (h, to.alpha / here.alpha, to.sigma),
    };
    let newest = Linear::from(history(from));
    let step = kept * Linear::from(BASE) - weight * hh.exp_m1() * newest.clone();

    // Differences from the newest answer, per unit of r, the place in the step; the end of the step is r = 1.
    let mut nodes: Vec<(f64, Linear)> = (1..order)
        .map(|back| ((places[from - back].lambda - here.lambda) / h, Linear::from(history(from - back))))
        .collect();
    if correct {
        nodes.push((1.0, history(from + 1).into()));
    }
    let big_b = if config.solver_type == SolverType::Bh1 { hh } else { hh.exp_m1() };
    let rhos = match nodes.len() {
        0 => Vec::new(),
        1 => vec![0.5],
        _ => solve(&nodes.iter().map(|(r, _)| *r).collect::<Vec<f64>>(), &moments(hh, big_b, nodes.len())),
    };
    let change: Linear = nodes.into_iter().zip(rhos).map(|((r, m), rho)| rho / r * (m - newest.clone())).sum();
    step - weight * big_b * change
}

/// b_i = i! phi_{i+1}(hh) / B, i = 1 .. count, with phi_1 = (e^hh - 1) / hh and phi_{i+1} = phi_i / hh - 1 / (i! hh)
/// up to the factor hh that the original leaves in.
fn moments(hh: f64, big_b: f64, count: usize) -> Vec<f64> {
    let (mut factorial, mut phi) = (1.0, hh.exp_m1() / hh - 1.0);
    (1..=count)
        .map(|i| {
            let moment = phi * factorial / big_b;
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
            moment
        })
        .collect()
}

/// Solves sum_j r_j^(i-1) rho_j = b_i for rho, a Vandermonde system of two or three unknowns, by eliminating down and
/// substituting back.
fn solve(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let n = nodes.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|i| nodes.iter().map(|r| r.powi(i as i32)).chain([moments[i]]).collect()).collect();
    for pivot in 0..n {
        for row in pivot + 1..n {
            let factor = rows[row][pivot] / rows[pivot][pivot];
            for column in pivot..=n {
                rows[row][column] -= factor * rows[pivot][column];
            }
        }
    }
    let mut rhos = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| rows[row][column] * rhos[column]).sum();
        rhos[row] = (rows[row][n] - known) / rows[row][row];
    }
    rhos
}
