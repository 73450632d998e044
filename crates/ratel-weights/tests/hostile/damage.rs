//! Files damaged at random.

use super::common::model;
use super::{Folder, LARGEST, MOST_MEMORY, fused, small, use_it, with_header};
use proptest::prelude::*;
use std::fs;
use std::sync::atomic::Ordering;

/// What may happen to a file.
#[derive(Clone, Debug)]
enum Damage {
    /// A bit turned.
    Flip { at: usize, bit: u8 },
    /// The end lost.
    Cut { at: usize },
    /// A part in place of another.
    Splice { from: usize, to: usize, count: usize },
    /// A part twice, so that everything after it moves.
    Repeat { from: usize, count: usize },
    /// Another digit in a number of the header: shapes and offsets that are still JSON.
    Digit { at: usize, digit: u8 },
    /// Another element type.
    Type { at: usize, name: &'static str },
}

/// Places are taken modulo what there is, more often in the header, where damage does more.
fn damage(header: usize) -> impl Strategy<Value = Damage> {
    let place = move || prop_oneof![3 => 0..header + 8, 1 => any::<usize>()];
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        place().prop_map(|at| Damage::Cut { at }),
        (place(), place(), 1..64usize).prop_map(|(from, to, count)| Damage::Splice { from, to, count }),
        (place(), 1..64usize).prop_map(|(from, count)| Damage::Repeat { from, count }),
        (any::<usize>(), b'0'..=b'9').prop_map(|(at, digit)| Damage::Digit { at, digit }),
        (any::<usize>(), prop::sample::select(vec!["\"F32\"", "\"F16\"", "\"BF16\"", "\"I64\"", "\"U8\"", "\"F4\""]))
            .prop_map(|(at, name)| Damage::Type { at, name }),
    ]
}

fn apply(bytes: &mut Vec<u8>, header: usize, damage: &Damage) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let end = (header + 8).min(length);
    match *damage {
        Damage::Flip { at, bit } => bytes[at % length] ^= 1 << bit,
        Damage::Cut { at } => bytes.truncate(at % length),
        Damage::Splice { from, to, count } => {
            let (from, to) = (from % length, to % length);
            let count = count.min(length - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
        Damage::Repeat { from, count } => {
            let from = from % length;
            let part = bytes[from..(from + count).min(length)].to_vec();
            bytes.splice(from..from, part);
        }
        Damage::Digit { at, digit } => {
            let digits: Vec<usize> = (8.min(end)..end).filter(|i| bytes[*i].is_ascii_digit()).collect();
            if let Some(place) = digits.get(at % digits.len().max(1)) {
                bytes[*place] = digit;
            }
        }
        Damage::Type { at, name } => {
            let old = b"\"F32\"";
            let places: Vec<usize> =
                (8.min(end)..end.saturating_sub(old.len())).filter(|i| bytes[*i..].starts_with(old)).collect();
            if let Some(place) = places.get(at % places.len().max(1)) {
                bytes.splice(*place..*place + old.len(), name.bytes());
                // a header that still has its length, where there is room for it
                let longer = (header + name.len() - old.len()) as u64;
                bytes[..8].copy_from_slice(&longer.to_le_bytes());
            }
        }
    }
}

/// Damages a file and uses it: a line, or a checkpoint, within bounds.
fn survives(seed: &[u8], damages: &[Damage]) -> Result<(), TestCaseError> {
    let header = seed.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let mut bytes = seed.to_vec();
    for damage in damages {
        apply(&mut bytes, header, damage);
    }
    let folder = Folder::new();
    let path = folder.write("damaged.safetensors", bytes);
    if let Err(line) = use_it(&path) {
        prop_assert!(!line.chars().any(char::is_control), "{line:?} is more than one line");
        prop_assert!(line.contains("damaged.safetensors"), "{line:?} names the file");
        prop_assert!(line.len() < 2000);
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    prop_assert!(largest < MOST_MEMORY, "{largest} bytes were asked for");
    Ok(())
}

fn small_file() -> Vec<u8> {
    let (header, data) = small();
    with_header(&header.to_string(), &data)
}

fn fused_file() -> Vec<u8> {
    let (header, data) = fused();
    with_header(&header.to_string(), &data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_small_file_is_survived(damages in prop::collection::vec(damage(300), 1..5)) {
        survives(&small_file(), &damages)?;
    }

    #[test]
    fn a_damaged_fused_file_is_survived(damages in prop::collection::vec(damage(800), 1..5)) {
        survives(&fused_file(), &damages)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_checkpoint_is_survived(damages in prop::collection::vec(damage(90_000), 1..4)) {
        survives(&fs::read(model("tiny.safetensors")).expect("the fixture"), &damages)?;
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..200u64) {
        survives(&bytes, &[])?;
        survives(&[&length.to_le_bytes(), &bytes[..]].concat(), &[])?;
    }
}
