//! Which training timesteps a run visits.

/// Rules for placing a run's timesteps: diffusers' `timestep_spacing`, and ComfyUI's `simple`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Multiples of T / steps counted from `steps_offset`: 951 ... 51, 1 for twenty steps. Never looks at T - 1.
    Leading,
    /// Steps of T / steps counted down from T: 999, 949 ... 49.
    Trailing,
    /// Evenly from T - 1 to 0, both included: 999, 946.42 ... 0.
    Linspace,
    /// ComfyUI's `simple_scheduler`: trailing, but rounded down, so that it differs where T / steps is not whole.
    Simple,
}

/// How a scheduler class counts its timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// One for each step.
    Steps,
    /// One for each step and one more for the end, which is then left out: DPM-Solver, UniPC, DEIS.
    StepsAndEnd,
}

impl Spacing {
    /// The timesteps of a run, first to last, hence falling. Only `Linspace` gives fractions.
    ///
    /// `train_steps`: T. `steps`: 1 ..= T. `offset`: `steps_offset`, used by `Leading` alone. A timestep can reach T
    /// with a large offset; the caller refuses what its tables do not hold.
    ///
    /// Where `steps` does not divide T, rounding sometimes makes diffusers return one timestep too many from
    /// `Trailing`, namely -1 (61 steps of 1000, for one). Here it is always `steps`.
    pub fn timesteps(self, points: Points, train_steps: usize, steps: usize, offset: usize) -> Vec<f64> {
        let places = match points {
            Points::Steps => steps,
            Points::StepsAndEnd => steps + 1,
        };
        let total = train_steps as f64;
        let down_from_end = |i: usize| total - i as f64 * (total / steps as f64);
        match self {
            Spacing::Leading => {
                let ratio = train_steps / places;
                (places - steps..places).rev().map(|i| (i * ratio + offset) as f64).collect()
            }
            Spacing::Trailing => (0..steps).map(|i| down_from_end(i).round_ties_even() - 1.0).collect(),
            Spacing::Simple => (0..steps).map(|i| total - 1.0 - (i * train_steps / steps) as f64).collect(),
            Spacing::Linspace => linspace(0.0, total - 1.0, places).into_iter().rev().take(steps).collect(),
        }
    }
}

/// numpy.linspace: `count` values from `start` to exactly `end`; the start alone when `count` is 1.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    let value = |i| if i > 0 && i + 1 == count { end } else { i as f64 * step + start };
    (0..count).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::{Points, Spacing};

    fn ends(spacing: Spacing, points: Points, steps: usize, offset: usize) -> (f64, f64, f64) {
        let timesteps = spacing.timesteps(points, 1000, steps, offset);
        assert_eq!(timesteps.len(), steps);
        (timesteps[0], timesteps[1], timesteps[steps - 1])
    }

    #[test]
    fn twenty_steps_of_a_thousand() {
        assert_eq!(ends(Spacing::Leading, Points::Steps, 20, 1), (951.0, 901.0, 1.0));
        assert_eq!(ends(Spacing::Trailing, Points::Steps, 20, 1), (999.0, 949.0, 49.0));
        let (first, second, last) = ends(Spacing::Linspace, Points::Steps, 20, 1);
        assert_eq!((first, last), (999.0, 0.0));
        assert!((second - 946.421_052_6).abs() < 1e-6);
    }

    #[test]
    fn simple_rounds_down_where_trailing_rounds() {
        // ComfyUI: sigmas[-(1 + int(x * 1000 / 7))] for x = 0 .. 6.
        let expected = [999.0, 857.0, 714.0, 571.0, 428.0, 285.0, 142.0];
        assert_eq!(Spacing::Simple.timesteps(Points::Steps, 1000, 7, 1), expected);
        let trailing = [999.0, 856.0, 713.0, 570.0, 428.0, 285.0, 142.0];
        assert_eq!(Spacing::Trailing.timesteps(Points::Steps, 1000, 7, 1), trailing);
    }

    #[test]
    fn sixty_one_steps_are_sixty_one() {
        // numpy's arange gives diffusers a 62nd, which is -1.
        let timesteps = Spacing::Trailing.timesteps(Points::Steps, 1000, 61, 1);
        assert_eq!((timesteps.len(), timesteps[60]), (61, 15.0));
    }
}
