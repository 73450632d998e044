//! The CLIP vocabulary inside the program, for checkpoints that come as a single file (`data/README.md` names its
//! source and licence). SD1, SD2 and SDXL share it and differ only in the padding token.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;
use tokenizers::AddedToken;

use super::TextError;
use super::vocabulary::{BOS, DEFAULT_MAX_LENGTH, EOS, Vocabulary, byte_alphabet};

/// The merges, best first, one pair a line; the vocabulary follows from them.
const MERGES: &[u8] = include_bytes!("../../data/clip_merges.txt.gz");

/// What fills a prompt up to `max_length`, for checkpoints whose files don't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadToken {
    /// `<|endoftext|>`, 49407: CLIP-L, the text encoder of SD1 and the first of SDXL.
    EndOfText,
    /// `!`, 0: OpenCLIP's ViT-H of SD2 and bigG, the second of SDXL. A "!" typed in a prompt becomes 0 too, as it does in
    /// transformers; OpenCLIP's own tokenizer gives 256 there.
    Exclamation,
}

/// CLIP's 49408 tokens: 256 bytes, the same 256 ending a word, 48894 merges, BOS and EOS.
pub(super) fn vocabulary(pad: PadToken) -> Result<Vocabulary, TextError> {
    let broken = |reason: String| TextError::Vocabulary { origin: "the program".to_owned(), reason };
    let mut text = String::new();
    GzDecoder::new(MERGES).read_to_string(&mut text).map_err(|error| broken(error.to_string()))?;
    let merges = text
        .lines()
        .map(|line| line.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| broken("a merge is not two tokens".to_owned()))?;

    let tokens = byte_alphabet()
        .map(String::from)
        .chain(byte_alphabet().map(|byte| format!("{byte}</w>")))
        .chain(merges.iter().map(|(left, right)| format!("{left}{right}")))
        .chain([BOS.to_owned(), EOS.to_owned()]);
    let ids: HashMap<String, u32> = tokens.zip(0..).collect();

    let pad = match pad {
        PadToken::EndOfText => EOS,
        PadToken::Exclamation => "!",
    };
    Ok(Vocabulary {
        ids,
        merges,
        added: [BOS, EOS, pad].map(|token| AddedToken::from(token, true)).to_vec(),
        bos: BOS.to_owned(),
        eos: EOS.to_owned(),
        unk: EOS.to_owned(),
        pad: pad.to_owned(),
        max_length: DEFAULT_MAX_LENGTH,
    })
}
