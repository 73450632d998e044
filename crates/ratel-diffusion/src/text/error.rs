//! What can go wrong with a tokenizer's files.

use ratel_weights::WeightsError;
use std::path::PathBuf;

/// Why a tokenizer could not be loaded or used. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file that is no text, or can't be read.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// The folder holds no vocabulary.
    #[error("{folder} has no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt ({missing} is missing)")]
    Missing {
        /// The folder that was searched.
        folder: PathBuf,
        /// The file that was looked for.
        missing: &'static str,
    },
    /// A file is not what its name promises.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line or the key where there is one.
        reason: String,
    },
    /// Vocabulary, merges and special tokens do not fit together.
    #[error("the vocabulary of {origin} cannot be used: {reason}")]
    Vocabulary {
        /// The folder, or the embedded vocabulary.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer failed on a prompt.
    #[error("cannot tokenize the prompt: {0}")]
    Encode(String),
}

/// `text` in quotes for a message, cut short if a hostile file made it long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
