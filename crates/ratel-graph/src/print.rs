//! A plan as text: a line per step, then what it takes in memory.

use crate::{Memory, Plan};
use std::fmt;

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Slot(i) => write!(f, "slot {i}"),
            Memory::Weight(i) => write!(f, "weight {i}"),
            Memory::Input(i) => write!(f, "input {i}"),
            Memory::Output(i) => write!(f, "output {i}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5}  {:<62} {:<22} {:>10}  reads -> writes", "step", "module", "kernel", "MFLOP")?;
        for (i, step) in self.steps.iter().enumerate() {
            let kernel = step.choice.as_ref().map_or(step.op.name(), |choice| choice.kernel.name);
            write!(f, "{i:>5}  {:<62} {kernel:<22} {:>10.2}  ", step.label, step.op.flops() / 1e6)?;
            let (output, inputs) = step.operands.split_last().expect("an output");
            let read: Vec<_> = inputs
                .iter()
                .filter(|place| !matches!(place.memory, Memory::Weight(_)))
                .map(|place| place.memory.to_string())
                .collect();
            writeln!(f, "{} -> {}", read.join(", "), output.memory)?;
            if i + 1 == self.prologue {
                writeln!(f, "{:>5}  {:-<62} so far once for many runs, from here in each", "", "")?;
            }
        }
        for (i, bytes) in self.slots.iter().enumerate() {
            writeln!(f, "slot {i}: {}", mebibytes(*bytes))?;
        }
        for port in self.inputs.iter().chain(&self.outputs) {
            writeln!(f, "{} {}: {}", port.name, port.shape, mebibytes(port.bytes))?;
        }
        let prologue_flops: f64 = self.steps[..self.prologue].iter().map(|step| step.op.flops()).sum();
        let (activations, weights) = (self.activation_bytes(), self.weight_bytes());
        write!(
            f,
            "{} steps, {:.1} GFLOP{}; activations {}, weights {}, together {}",
            self.steps.len(),
            self.flops() / 1e9,
            match self.prologue {
                0 => String::new(),
                n => format!(", the first {n} with {:.1} GFLOP once for many runs", prologue_flops / 1e9),
            },
            mebibytes(activations),
            mebibytes(weights),
            mebibytes(activations + weights)
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}
