//! Prompts: CLIP's tokenizer, from a checkpoint's own files or from the vocabulary inside the program.
//!
//! The reference is transformers' `CLIPTokenizer` (`models/clip/tokenization_clip.py`), whose rules are these:
//!
//! 1. Typed-in special tokens such as `<|endoftext|>` are cut out first and become their own id.
//! 2. The rest is normalised: Unicode NFC, every run of white space one space, lower case (character by character, so
//!    a final sigma stays `σ`).
//! 3. It is split into words: contractions, runs of letters, single digits, runs of everything else.
//! 4. Each word's UTF-8 bytes are merged pair by pair, lowest rank first; a word's last piece carries `</w>`.
//! 5. The ids stand between BOS and EOS, are cut to fit, and are padded to `max_length`.
//!
//! Unlike OpenAI's original (`clip/simple_tokenizer.py`) the reference neither repairs mojibake with ftfy nor unescapes
//! HTML entities; it breaks up a special token typed in capitals unless the folder's files flag it `normalized`; and
//! where "!" is the padding token (SD2, SDXL's bigG) a typed "!" becomes that token, 0, instead of 256.

mod embedded;
mod error;
mod files;
mod tokenizer;
mod vocabulary;

pub use embedded::PadToken;
pub use error::TextError;
pub use tokenizer::{ClipTokenizer, Tokens, Word};
