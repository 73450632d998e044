//! Every kernel that can do one op on the device at hand, each checked against the twin before it is timed.

use crate::check::{Check, Trial};
use crate::time::Timing;
use crate::{Engine, EngineError};
use ratel_kernels::{Choice, Cost, Op, Role, Target, WeightStorage, choose, kernels_of, variants};
use ratel_tensor::Elem;
use std::time::Duration;

/// One kernel in one variant, on one op.
#[derive(Debug)]
pub struct Entrant {
    /// The kernel; `twin` for the twin.
    pub kernel: &'static str,
    /// The type of activations.
    pub elem: Elem,
    /// The storage of layers' matrices; `None` for an op that has none.
    pub weight: Option<WeightStorage>,
    /// Whether it is the one that runs when nothing else is said.
    pub chosen: bool,
    /// The least work the op can be done with in this variant.
    pub cost: Cost,
    /// How it compares with the twin; `None` for the twin.
    pub check: Option<Check>,
    /// How long it takes; `None` where it failed the check.
    pub timing: Option<Timing>,
}

/// Runs every kernel that can do `op` on the engine's device in every combination of element types: each is checked on
/// random operands, and those that pass are timed, each for some `budget`. With `only`, the kernel of that name runs alone.
/// On the CPU twins the twin is timed. Lazy: an entrant is run when it is asked for; the right answer is computed once for
/// each combination of element types.
pub fn race<'a>(
    engine: &'a Engine,
    op: &'a Op,
    only: Option<&'a str>,
    budget: Duration,
) -> impl Iterator<Item = Result<Entrant, EngineError>> + 'a {
    let weighs = op.operands().iter().any(|operand| operand.role == Role::Weight);
    let mut targets: Vec<Target> = match engine.device() {
        None => [WeightStorage::F32, WeightStorage::F16].map(Target::twins).to_vec(),
        Some(info) => variants(info.f16)
            .into_iter()
            .filter_map(|(elem, weight)| engine.target_stored(elem, weight).ok())
            .collect(),
    };
    if !weighs {
        // without a matrix, variants that differ only in its storage are the same
        targets.dedup_by_key(|target| target.elem);
    }
    targets.into_iter().flat_map(move |target| match variant(engine, op, target, only, budget, weighs) {
        Ok(entrants) => entrants,
        Err(error) => vec![Err(error)],
    })
}

/// Runs kernels on one op, one after the other: each is checked on random operands, the same for all, and if it passes is
/// timed for some `budget`. Lazy, but for the right answer, which is computed first. A kernel that can't be compiled is an
/// error in its own place, and the next one follows.
///
/// # Errors
/// If there is no room for the operands. On the CPU twins, which have no kernels, every entrant is an error.
pub fn climb<'a>(
    engine: &'a Engine,
    op: &'a Op,
    target: &'a Target,
    choices: &'a [Choice],
    budget: Duration,
) -> Result<impl Iterator<Item = Result<Entrant, EngineError>> + 'a, EngineError> {
    let trial = Trial::new(op, target, 0)?;
    let best = choose(op, target).map(|choice| choice.kernel.name);
    let weighs = op.operands().iter().any(|operand| operand.role == Role::Weight);
    Ok(choices.iter().map(move |choice| {
        let (check, timing) = trial.run_and_time(engine, choice, budget)?;
        Ok(Entrant {
            kernel: check.kernel,
            elem: target.elem,
            weight: weighs.then_some(target.weight),
            chosen: best == Some(check.kernel),
            cost: op.cost(target),
            check: Some(check),
            timing,
        })
    }))
}

fn variant(
    engine: &Engine,
    op: &Op,
    target: Target,
    only: Option<&str>,
    budget: Duration,
    weighs: bool,
) -> Result<Vec<Result<Entrant, EngineError>>, EngineError> {
    let entrant = |kernel, chosen, check, timing| Entrant {
        kernel,
        elem: target.elem,
        weight: weighs.then_some(target.weight),
        chosen,
        cost: op.cost(&target),
        check,
        timing,
    };
    if target.twins {
        let buffers: Vec<_> = op
            .operands()
            .iter()
            .map(|operand| engine.allocate("race", operand.bytes(&target)))
            .collect::<Result<_, _>>()?;
        let regions: Vec<_> = buffers.iter().map(|memory| memory.region(0, memory.bytes())).collect();
        let timing = engine.time(op, None, &target, &regions, budget)?;
        return Ok(vec![Ok(entrant("twin", true, None, Some(timing)))]);
    }
    let mut choices = kernels_of(op, &target);
    choices.retain(|choice| only.is_none_or(|name| choice.kernel.name == name));
    if choices.is_empty() {
        return Ok(vec![]);
    }
    let best = choose(op, &target).map(|choice| choice.kernel.name);
    let trial = Trial::new(op, &target, 0)?;
    let run = |choice| {
        let (check, timing) = trial.run_and_time(engine, choice, budget)?;
        Ok(entrant(check.kernel, best == Some(check.kernel), Some(check), timing))
    };
    Ok(choices.iter().map(run).collect())
}
