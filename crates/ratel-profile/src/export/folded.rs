//! Folded stacks, as flame graphs take them (Gregg's stackcollapse format): a module's path and the kernel under it, then
//! nanoseconds, summed over all steps.

use crate::Profile;
use std::collections::BTreeMap;
use std::io::Write;

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for dispatch in &profile.dispatches {
        let stack = format!("{};{}", frames(&dispatch.module).join(";"), clean(&dispatch.kernel));
        let sum = stacks.entry(stack).or_default();
        *sum = sum.saturating_add(dispatch.ns.first().copied().unwrap_or(0));
    }
    for (stack, ns) in stacks {
        writeln!(out, "{stack} {ns}")?;
    }
    Ok(())
}

/// `unet.down_blocks.0.resnets.1.conv1` as `unet`, `down_blocks.0`, `resnets.1`, `conv1`: a number belongs to the list before it.
pub(super) fn frames(module: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    for part in clean(module).split('.') {
        match frames.last_mut() {
            Some(list) if part.bytes().all(|b| b.is_ascii_digit()) => *list = format!("{list}.{part}"),
            _ => frames.push(part.to_owned()),
        }
    }
    frames
}

/// A frame without what separates frames.
fn clean(frame: &str) -> String {
    frame.replace([';', ' ', '\n', '\r'], "_")
}
