//! PNDM (arXiv:2202.09778): Adams-Bashforth steps on the predicted noise, transferred between levels by formula 9.
//! Source: scheduling_pndm.py.

use super::levels::{Abar, whole_timesteps};
use super::program::{Linear, Recorder, Reg, Run};
use super::{SamplerConfig, SamplerError};

/// The latent that a group of calls starts from.
const BASE: Reg = Reg::Scratch(0);
/// The weighted sum of a Runge-Kutta group's answers.
const WEIGHTED: Reg = Reg::Scratch(1);

/// The last four answers live in four history registers in turn.
fn history(answer: usize) -> Reg {
    Reg::History((answer % 4) as u8)
}

/// Plans either form: Runge-Kutta for three steps and then multistep, or multistep throughout (PLMS), whose first
/// step asks the model twice. An image-to-image run counts `start` in entries of diffusers' list of timesteps, which
/// has the second one twice, and so runs one call more than asked for, as diffusers does.
pub(super) fn pndm(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let mut transfer = Transfer { config, abar: Abar::new(config)?, recorder: Recorder::default() };
    let stride = (config.betas.train_steps / steps) as i64;
    let timesteps = whole_timesteps(config, steps)?;
    if config.skip_prk_steps {
        let mut calls = timesteps;
        if let Some(&second) = calls.get(1) {
            calls.insert(1, second);
        }
        transfer.multistep(&calls[start..], stride, 0);
    } else if steps < 4 || start > 0 {
        return Err(SamplerError::Incompatible {
            sampler: "pndm",
            setting: "fewer than 4 steps, or a start from an image, without skip_prk_steps".into(),
            instead: "set skip_prk_steps, or take another sampler".into(),
        });
    } else {
        transfer.runge_kutta(&timesteps[..4], stride / 2);
        transfer.multistep(&timesteps[3..], stride, 3);
    }
    transfer.recorder.finish(1.0)
}

struct Transfer<'a> {
    config: &'a SamplerConfig,
    abar: Abar,
    recorder: Recorder,
}

impl Transfer<'_> {
    fn begin(&mut self, timestep: i64) {
        let abar = self.abar.at(timestep);
        self.recorder.step(abar.sqrt(), (1.0 - abar).sqrt());
    }

    /// Three steps of four calls, at t, t - half, t - half and t - 2 half. `timesteps`: where they begin and end.
    fn runge_kutta(&mut self, timesteps: &[i64], half: i64) {
        for (step, pair) in timesteps.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            // diffusers lists t, next + half, next + half, next, and moves to that minus half on even calls.
            let places = [from, to + half, to + half, to];
            self.begin(from);
            for (call, place) in places.into_iter().enumerate() {
                self.recorder.model(Reg::X, 1.0, place as f64);
                let answer = match call {
                    0 => {
                        self.recorder.set(BASE, Reg::X.into());
                        self.recorder.set(WEIGHTED, Linear::from(Reg::Model) / 6.0);
                        self.recorder.set(history(step), Reg::Model.into())
                    }
                    1 | 2 => {
                        self.recorder.set(WEIGHTED, Linear::from(WEIGHTED) + Linear::from(Reg::Model) / 3.0);
                        Reg::Model.into()
                    }
                    _ => Linear::from(WEIGHTED) + Linear::from(Reg::Model) / 6.0,
                };
                let target = if call % 2 == 0 { place - half } else { place };
                self.set_x(BASE, from, target, answer);
            }
        }
    }

    /// One call a step, but two in the first of a run that begins here. `answers`: how many the history holds.
    fn multistep(&mut self, calls: &[i64], stride: i64, mut answers: usize) {
        let begins_here = answers == 0;
        for (call, &timestep) in calls.iter().enumerate() {
            let repeats = begins_here && call == 1;
            if !repeats {
                self.begin(timestep);
            }
            self.recorder.model(Reg::X, 1.0, timestep as f64);
            if repeats {
                // The same step again, from the mean of its answers at both ends.
                let mean = (Linear::from(Reg::Model) + history(0).into()) / 2.0;
                self.set_x(BASE, timestep + stride, timestep, mean);
                continue;
            }
            if begins_here && call == 0 {
                self.recorder.set(BASE, Reg::X.into());
            }
            self.recorder.set(history(answers), Reg::Model.into());
            answers += 1;
            let weights: &[f64] = match answers {
                1 => &[1.0],
                2 => &[3.0 / 2.0, -1.0 / 2.0],
                3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
                _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
            };
            let newest_first = (0..answers).rev().map(history);
            let answer = weights.iter().zip(newest_first).map(|(&weight, reg)| weight * Linear::from(reg)).sum();
            self.set_x(Reg::X, timestep, timestep - stride, answer);
        }
    }

    /// Formula 9: X becomes the latent at timestep `to`, from the one at timestep `from` and an answer.
    fn set_x(&mut self, base: Reg, from: i64, to: i64, answer: Linear) {
        let (here, next) = (self.abar.at(from), self.abar.at(to));
        let epsilon = self.config.prediction.split(base.into(), answer, here.sqrt(), (1.0 - here).sqrt()).epsilon;
        let divisor = here * (1.0 - next).sqrt() + (here * (1.0 - here) * next).sqrt();
        let value = (next / here).sqrt() * Linear::from(base) - (next - here) / divisor * epsilon;
        self.recorder.set(Reg::X, value);
    }
}
