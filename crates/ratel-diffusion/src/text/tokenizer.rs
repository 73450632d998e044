//! From a prompt to token ids.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use ratel_weights::Files;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Encoding, SplitDelimiterBehavior, Tokenizer, normalizers, pre_tokenizers};

use super::embedded::{self, PadToken};
use super::error::quoted;
use super::vocabulary::Vocabulary;
use super::{TextError, files};

/// How a prompt falls into words. What fits nothing here, which is white space, falls away.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's byte-level BPE tokenizer. Gives the ids of transformers' `CLIPTokenizer` called with
/// `padding="max_length", truncation=True`, as diffusers calls it.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    max_length: usize,
    bos: u32,
    eos: u32,
    pad: u32,
    vocab_size: usize,
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// BOS, the prompt, EOS, padding: exactly `max_length` ids.
    pub ids: Vec<u32>,
    /// The prompt's words in order, and where in `ids` each of them is. BOS, EOS and padding belong to no word.
    pub words: Vec<Word>,
    /// The end of the prompt that did not fit, as it was typed; it may begin inside a word.
    pub cut: Option<String>,
}

/// A piece of the prompt that was tokenized on its own: a run of letters, a digit, a run of signs, a special token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it was typed. Of a word that did not fit whole, the part that did.
    pub text: String,
    /// Its ids are `ids[positions]`.
    pub positions: Range<usize>,
}

impl ClipTokenizer {
    /// The tokenizer in a folder: `tokenizer.json`, or `vocab.json` and `merges.txt`; with `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` where they exist. Without them the padding token is EOS and the
    /// length 77.
    ///
    /// # Errors
    /// Missing, unreadable, oversized or malformed files; merges that don't fit the vocabulary.
    pub fn from_folder(files: Files, folder: &Path) -> Result<Self, TextError> {
        Self::build(files::vocabulary(files, folder)?, &folder.display().to_string())
    }

    /// The tokenizer of OpenAI's CLIP from the vocabulary inside the program: 49408 tokens, 77 ids per prompt.
    ///
    /// # Errors
    /// Only if the embedded data is damaged.
    pub fn embedded(pad: PadToken) -> Result<Self, TextError> {
        Self::build(embedded::vocabulary(pad)?, "the program")
    }

    fn build(vocabulary: Vocabulary, origin: &str) -> Result<Self, TextError> {
        let unusable = |reason: String| TextError::Vocabulary { origin: origin.to_owned(), reason };
        vocabulary.check().map_err(unusable)?;
        let Vocabulary { ids, merges, added, bos, eos, unk, pad, max_length } = vocabulary;

        let largest = ids.values().copied().max().unwrap_or(0);
        let tokenizer = pipeline(ids.into_iter().collect(), merges, unk)
            .and_then(|mut tokenizer| {
                tokenizer.add_tokens(added)?;
                Ok(tokenizer)
            })
            .map_err(|error| unusable(error.to_string()))?;
        let largest = tokenizer.get_added_tokens_decoder().keys().copied().fold(largest, u32::max);

        let id = |token: &str| {
            let id = tokenizer.token_to_id(token);
            id.ok_or_else(|| unusable(format!("its special token {} has no id", quoted(token))))
        };
        let (bos, eos, pad) = (id(&bos)?, id(&eos)?, id(&pad)?);
        Ok(Self { tokenizer, max_length, bos, eos, pad, vocab_size: largest as usize + 1 })
    }

    /// Turns a prompt into ids: [`Self::max_length`] of them, whatever the prompt. What does not fit is named in
    /// [`Tokens::cut`].
    ///
    /// # Errors
    /// None is known for a tokenizer that loaded; what the tokenizers library reports is passed on.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, TextError> {
        let encoding = self.tokenizer.encode(prompt, false).map_err(|error| TextError::Encode(error.to_string()))?;
        let kept = encoding.len().min(self.max_length - 2);

        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos);
        ids.extend_from_slice(&encoding.get_ids()[..kept]);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);

        let cut = encoding.get_offsets().get(kept).map(|&(start, _)| {
            let start = prompt.floor_char_boundary(start);
            prompt[start..].trim().to_owned()
        });
        Ok(Tokens { ids, words: words(prompt, &encoding, kept), cut })
    }

    /// Ids per prompt, BOS and EOS included: 77 for every Stable Diffusion.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The id before the prompt: 49406.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id after the prompt: 49407.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills up to [`Self::max_length`]: 49407 for SD1, 0 for SD2.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// One more than the largest id that [`Self::encode`] can give: the rows that a token embedding must have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The spelling of a token in the vocabulary (`cat</w>`, `ðŁĺ`, `<|endoftext|>`): bytes appear as GPT-2's printable
    /// characters, and `</w>` ends a word. None for an id that stands for nothing.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }
}

impl fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokenizer: _, max_length, bos, eos, pad, vocab_size } = self;
        write!(
            f,
            "ClipTokenizer {{ vocab_size: {vocab_size}, max_length: {max_length}, bos: {bos}, eos: {eos}, pad: {pad} }}"
        )
    }
}

/// The reference's normalizer, word splitting and BPE, without special tokens.
fn pipeline(ids: Vocab, merges: Vec<(String, String)>, unk: String) -> tokenizers::Result<Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(ids, merges)
        .unk_token(unk)
        .end_of_word_suffix("</w>".to_owned())
        .cache_capacity(0) // the library's cache is per thread and outlives the tokenizer; prompts are short
        .build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    let single_space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(vec![
        NFC.into(),
        single_space.into(),
        Lowercase.into(),
    ])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    // ByteLevel splits once more by GPT-2's rules, which breaks up a `<|startoftext|>` that was typed in capitals.
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizers::sequence::Sequence::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// The words of the first `kept` tokens; positions count BOS.
fn words(prompt: &str, encoding: &Encoding, kept: usize) -> Vec<Word> {
    let offsets = encoding.get_offsets();
    let mut first = 0;
    encoding.get_word_ids()[..kept]
        .chunk_by(|a, b| a == b)
        .map(|same| {
            let tokens = first..first + same.len();
            first = tokens.end;
            // A word reaches up to the next one, white space aside: the offsets leave out marks that NFC composed. It is
            // never less than its own offsets, since two words may come from one character (İ becomes i and a dot).
            let next = offsets.get(tokens.end).map_or(prompt.len(), |&(start, _)| start);
            let start = offsets[tokens.start].0;
            let end = offsets[tokens.clone()].iter().map(|&(_, end)| end).fold(next.max(start), usize::max);
            let text = &prompt[prompt.floor_char_boundary(start)..prompt.ceil_char_boundary(end)];
            Word { text: text.trim().to_owned(), positions: tokens.start + 1..tokens.end + 1 }
        })
        .collect()
}
