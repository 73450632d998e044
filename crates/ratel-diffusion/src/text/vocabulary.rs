//! A tokenizer's vocabulary as plain data, wherever it came from, and the checks it must pass.

use std::collections::HashMap;

use tokenizers::AddedToken;

use super::error::quoted;

/// Ids above this cannot be rows of any CLIP embedding table (49408 rows); they would only waste memory.
const MAX_ID: u32 = 1_000_000;

/// CLIP's token before the prompt.
pub(super) const BOS: &str = "<|startoftext|>";
/// CLIP's token after the prompt; also the unknown token, and SD1's padding.
pub(super) const EOS: &str = "<|endoftext|>";
/// CLIP's context: BOS, 75 tokens of prompt, EOS.
pub(super) const DEFAULT_MAX_LENGTH: usize = 77;

/// Everything that decides how a prompt becomes ids.
pub(super) struct Vocabulary {
    /// Token spelling (bytes as printable characters, `</w>` at a word's end) to id.
    pub(super) ids: HashMap<String, u32>,
    /// Pairs of spellings to join, best first.
    pub(super) merges: Vec<(String, String)>,
    /// Tokens found in the prompt before it is split; a later entry with the same text replaces an earlier one.
    pub(super) added: Vec<AddedToken>,
    /// Spelling of the token before the prompt.
    pub(super) bos: String,
    /// Spelling of the token after the prompt.
    pub(super) eos: String,
    /// Spelling of the token for bytes that the vocabulary lacks.
    pub(super) unk: String,
    /// Spelling of the token that fills up to `max_length`.
    pub(super) pad: String,
    /// Ids per prompt, BOS and EOS included.
    pub(super) max_length: usize,
}

impl Vocabulary {
    /// Checks that ids are in range and used once, that every merge joins known tokens to a known token, and that any
    /// byte can be encoded. Says what is wrong in one line.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut by_id: HashMap<u32, &str> = HashMap::with_capacity(self.ids.len());
        for (token, &id) in &self.ids {
            if id > MAX_ID {
                return Err(format!("token {} has id {id}, above the limit of {MAX_ID}", quoted(token)));
            }
            if let Some(other) = by_id.insert(id, token) {
                return Err(format!("tokens {} and {} both have id {id}", quoted(other), quoted(token)));
            }
        }
        let mut joined = String::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            if let Some(unknown) = [left, right, &joined].into_iter().find(|&token| !self.ids.contains_key(token)) {
                let pair = format!("{} + {}", quoted(left), quoted(right));
                return Err(format!("merge {} ({pair}) needs token {}, which has no id", rank + 1, quoted(unknown)));
            }
        }
        if !self.ids.contains_key(&self.unk) {
            let lacking = byte_alphabet()
                .flat_map(|byte| [byte.to_string(), format!("{byte}</w>")])
                .find(|token| !self.ids.contains_key(token));
            if let Some(token) = lacking {
                return Err(format!(
                    "it lacks the byte token {token:?} and has no unknown token {}",
                    quoted(&self.unk)
                ));
            }
        }
        Ok(())
    }
}

/// The 256 bytes as GPT-2 spells them, in the order of CLIP's first 256 ids: bytes that print as Latin-1 stand for
/// themselves, then the other 68 (controls, spaces, soft hyphen) as U+0100, U+0101, ... (OpenAI's `bytes_to_unicode`).
pub(super) fn byte_alphabet() -> impl Iterator<Item = char> {
    ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('\u{100}'..='\u{143}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_has_256_characters() {
        let mut characters: Vec<char> = byte_alphabet().collect();
        assert_eq!((characters.len(), characters[0], characters[188]), (256, '!', 'Ā'));
        characters.dedup();
        assert_eq!(characters.len(), 256);
    }
}
