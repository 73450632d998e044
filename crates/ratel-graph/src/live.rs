//! How much of a plan's memory is in use at each step.

use crate::{Memory, Place, Plan};
use std::collections::BTreeMap;
use std::ops::Range;

/// A tensor in a slot, as the steps show it.
struct Tenant {
    first: usize,
    last: usize,
    written: Vec<Range<u64>>,
    read: bool,
}

impl Plan {
    /// Bytes in use during each step: the weights, the inputs and outputs, and of the slots what tensors hold that are alive
    /// then, from the step that writes them to the last that reads them, or to the end for results of the prologue. A run allocates [`Plan::weight_bytes`] and
    /// [`Plan::activation_bytes`]; what is missing from that at a step is what slots leave empty.
    pub fn live_bytes(&self) -> Vec<u64> {
        let always: u64 = self.weight_bytes() + self.activation_bytes() - self.slots.iter().sum::<u64>();
        let mut live = vec![always; self.steps.len()];
        let mut leave = |tenant: &Tenant| {
            let bytes: u64 = tenant.written.iter().map(|range| range.end - range.start).sum();
            // what later steps read of the prologue is there for the next run, too
            let stays = tenant.first < self.prologue && tenant.last >= self.prologue;
            let end = if stays { self.steps.len() } else { tenant.last + 1 };
            live[tenant.first..end].iter_mut().for_each(|sum| *sum += bytes);
        };
        let mut tenants: BTreeMap<usize, Tenant> = BTreeMap::new();
        for (i, step) in self.steps.iter().enumerate() {
            let Some((output, inputs)) = step.operands.split_last() else { continue };
            for input in inputs {
                if let Memory::Slot(slot) = input.memory
                    && let Some(tenant) = tenants.get_mut(&slot)
                {
                    (tenant.last, tenant.read) = (i, true);
                }
            }
            let Place { memory: Memory::Slot(slot), offset, bytes } = *output else { continue };
            let range = offset..offset + bytes;
            // a tensor is written in one step, or in bands side by side, and then read
            let goes_on = |tenant: &&mut Tenant| {
                let apart = |other: &Range<u64>| other.end <= range.start || range.end <= other.start;
                !tenant.read && tenant.written.iter().all(apart)
            };
            match tenants.get_mut(&slot).filter(goes_on) {
                Some(tenant) => {
                    tenant.last = i;
                    tenant.written.push(range);
                }
                None => {
                    let new = Tenant { first: i, last: i, written: vec![range], read: false };
                    if let Some(old) = tenants.insert(slot, new) {
                        leave(&old);
                    }
                }
            }
        }
        tenants.values().for_each(leave);
        live
    }
}

#[cfg(test)]
mod tests {
    use crate::{Memory, Place, Plan, Step};
    use ratel_kernels::Target;
    use ratel_kernels::add::Add;

    fn step(inputs: &[(usize, u64)], output: (usize, u64, u64)) -> Step {
        let place = |slot, offset, bytes| Place { memory: Memory::Slot(slot), offset, bytes };
        let inputs = inputs.iter().map(|(slot, bytes)| place(*slot, 0, *bytes));
        let operands = inputs.chain([place(output.0, output.1, output.2)]).collect();
        Step { label: String::new(), op: Add { count: 1, span: 1, period: 1 }.into(), choice: None, operands }
    }

    fn plan(steps: Vec<Step>, prologue: usize, slots: Vec<u64>) -> Plan {
        let target = Target::PLAIN;
        let [inputs, outputs] = [vec![], vec![]];
        let [observed, modules] = [vec![], vec![]];
        Plan { target, steps, prologue, slots, weights: vec![], inputs, outputs, observed, modules }
    }

    #[test]
    fn tensors_live_from_their_step_to_their_last_reader() {
        let steps = vec![
            step(&[], (0, 0, 100)),                // a
            step(&[(0, 100)], (1, 0, 40)),         // b in two bands
            step(&[(0, 100)], (1, 40, 40)),        // a is read for the last time
            step(&[(1, 80)], (0, 0, 30)),          // c where a was, smaller
            step(&[(0, 30), (1, 80)], (2, 0, 10)), // d, which nothing reads
        ];
        assert_eq!(plan(steps, 0, vec![100, 80, 10]).live_bytes(), [100, 180, 180, 110, 120]);
    }

    #[test]
    fn what_is_computed_once_stays() {
        let steps = vec![
            step(&[], (0, 0, 50)),         // a, for b alone
            step(&[(0, 50)], (1, 0, 100)), // b, for every run
            step(&[(1, 100)], (0, 0, 20)), // c
            step(&[(0, 20)], (2, 0, 10)),  // d
        ];
        assert_eq!(plan(steps, 2, vec![50, 100, 10]).live_bytes(), [50, 150, 120, 130]);
    }
}
