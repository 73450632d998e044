//! A tokenizer folder's files, read as transformers 5 reads them (`_from_pretrained` in `tokenization_utils_base.py`).
//!
//! Of `tokenizer.json` only the vocabulary, the merges and the added tokens count: `CLIPTokenizer` builds its
//! normalizer and its splitting itself, whatever the file says, and so does Ratel.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ratel_weights::Files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TextError;
use super::error::quoted;
use super::vocabulary::{BOS, DEFAULT_MAX_LENGTH, EOS, Vocabulary};

/// transformers writes 1e30 for "no limit"; from here on a length is taken to mean that.
const UNLIMITED: f64 = 65_536.0;

/// In the order in which transformers adds them to the vocabulary (`SPECIAL_TOKENS_ATTRIBUTES`).
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads a tokenizer folder (`tokenizer/` or `tokenizer_2/` of a checkpoint).
pub(super) fn vocabulary(files: Files, folder: &Path) -> Result<Vocabulary, TextError> {
    let (ids, merges, listed) = match json::<TokenizerFile>(files, &folder.join("tokenizer.json"))? {
        Some(file) => from_tokenizer_json(&folder.join("tokenizer.json"), file)?,
        None => from_vocab_and_merges(files, folder)?,
    };
    let config_path = folder.join("tokenizer_config.json");
    let mut config = json::<Map<String, Value>>(files, &config_path)?.unwrap_or_default();
    let max_length = max_length(&config).map_err(|reason| malformed(&config_path, reason))?;

    // Newer folders list all their added tokens in tokenizer_config.json, and then nothing else is asked.
    let added: BTreeMap<u32, AddedEntry> = match config.remove("added_tokens_decoder") {
        Some(tokens) => serde_json::from_value(tokens)
            .map_err(|error| malformed(&config_path, format!("added_tokens_decoder: {error}")))?,
        None => legacy_added_tokens(files, folder, &mut config, listed)?,
    };
    let special = SpecialTokens::read(&config, &added).map_err(|reason| malformed(&config_path, reason))?;

    Ok(Vocabulary {
        ids,
        merges,
        bos: special.content("bos_token", BOS),
        eos: special.content("eos_token", EOS),
        unk: special.content("unk_token", EOS),
        pad: special.content("pad_token", EOS),
        added: special.all(added),
        max_length,
    })
}

type Parts = (HashMap<String, u32>, Vec<(String, String)>, Vec<ListedToken>);

/// The parts of tokenizer.json that count.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<ListedToken>,
    model: ModelSection,
}

#[derive(Deserialize)]
struct ModelSection {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<MergeEntry>,
}

/// One entry of tokenizer.json's `added_tokens`.
#[derive(Deserialize)]
struct ListedToken {
    id: u32,
    #[serde(flatten)]
    token: AddedEntry,
}

/// A merge as newer (pair) or older (one string) versions of the tokenizers library write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeEntry {
    Pair(String, String),
    Line(String),
}

fn from_tokenizer_json(path: &Path, file: TokenizerFile) -> Result<Parts, TextError> {
    if let Some(kind) = file.model.kind.filter(|kind| kind != "BPE") {
        return Err(malformed(path, format!("the model is {}, but CLIP's tokenizer is BPE", quoted(&kind))));
    }
    let merges = file
        .model
        .merges
        .into_iter()
        .zip(1..)
        .map(|(entry, number)| match entry {
            MergeEntry::Pair(left, right) => Ok((left, right)),
            MergeEntry::Line(line) => pair(&line).ok_or_else(|| {
                malformed(path, format!("merge {number} is not two tokens with a space between: {}", quoted(&line)))
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok((file.model.vocab, merges, file.added_tokens))
}

fn from_vocab_and_merges(files: Files, folder: &Path) -> Result<Parts, TextError> {
    let missing = |missing| TextError::Missing { folder: folder.to_owned(), missing };
    let ids = json(files, &folder.join("vocab.json"))?.ok_or_else(|| missing("vocab.json"))?;
    let path = folder.join("merges.txt");
    let text = files.text(&path)?.ok_or_else(|| missing("merges.txt"))?;
    let merges = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.starts_with("#version"))
        .map(|(line, number)| {
            pair(line).ok_or_else(|| {
                malformed(&path, format!("line {number} is not two tokens with a space between: {}", quoted(line)))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok((ids, merges, Vec::new()))
}

/// The two sides of a merge, which have exactly one space between them.
fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}

/// A special token as the files spell it: bare text, or an object with flags.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum TokenValue {
    Text(String),
    Entry(AddedEntry),
}

/// The flags of an added token. Where `normalized` is absent, special tokens are not and others are.
#[derive(Clone, Deserialize)]
struct AddedEntry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl AddedEntry {
    fn special(content: String) -> Self {
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special: true }
    }

    fn token(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .normalized(self.normalized.unwrap_or(!self.special))
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
    }
}

/// The added tokens of folders without `added_tokens_decoder`, by id: from special_tokens_map.json (whose entries
/// replace `config`'s), added_tokens.json and tokenizer.json, the later winning.
fn legacy_added_tokens(
    files: Files,
    folder: &Path,
    config: &mut Map<String, Value>,
    listed: Vec<ListedToken>,
) -> Result<BTreeMap<u32, AddedEntry>, TextError> {
    let map_path = folder.join("special_tokens_map.json");
    for (key, mut value) in json::<Map<String, Value>>(files, &map_path)?.unwrap_or_default() {
        if let Value::Object(entry) = &mut value {
            entry.insert("special".to_owned(), Value::Bool(true));
        }
        config.insert(key, value);
    }
    let special: Vec<&str> = SPECIAL_TOKENS.iter().filter_map(|&key| content_of(config.get(key)?)).collect();
    let by_name = json::<BTreeMap<String, u32>>(files, &folder.join("added_tokens.json"))?.unwrap_or_default();
    let named = by_name.into_iter().map(|(content, id)| {
        let is_special = special.contains(&content.as_str());
        (id, AddedEntry { special: is_special, ..AddedEntry::special(content) })
    });
    Ok(named.chain(listed.into_iter().map(|listed| (listed.id, listed.token))).collect())
}

/// The text of a special token's value.
fn content_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The named special tokens, then the extra ones.
struct SpecialTokens {
    named: Vec<(&'static str, TokenValue)>,
    extra: Vec<TokenValue>,
}

impl SpecialTokens {
    /// `added` lends its flags to special tokens of the same text. BOS, EOS, unknown and padding token have defaults.
    fn read(config: &Map<String, Value>, added: &BTreeMap<u32, AddedEntry>) -> Result<Self, String> {
        let parse = |key: &str, value: &Value| {
            TokenValue::deserialize(value).map_err(|_| format!("{key} is neither text nor a token with content"))
        };
        let mut named = Vec::new();
        for key in SPECIAL_TOKENS {
            let value = match config.get(key) {
                None | Some(Value::Null) => match key {
                    "bos_token" => TokenValue::Text(BOS.to_owned()),
                    "eos_token" | "unk_token" | "pad_token" => TokenValue::Text(EOS.to_owned()),
                    _ => continue,
                },
                Some(value) => parse(key, value)?,
            };
            let flagged = added.values().find(|entry| entry.content == value.content());
            named.push((key, flagged.map_or(value, |entry| TokenValue::Entry(entry.clone()))));
        }
        let mut extra = Vec::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for value in config.get(key).and_then(Value::as_array).into_iter().flatten() {
                extra.push(parse(key, value)?);
            }
        }
        Ok(Self { named, extra })
    }

    fn content(&self, key: &str, default: &str) -> String {
        let value = self.named.iter().find(|(name, _)| *name == key);
        value.map_or(default, |(_, value)| value.content()).to_owned()
    }

    /// All tokens in the order in which transformers adds them: `added` by id, then the special tokens not among them.
    /// The order matters, since a later entry replaces the flags of an earlier one with the same text.
    fn all(self, added: BTreeMap<u32, AddedEntry>) -> Vec<AddedToken> {
        let is_named = |content: &str| self.named.iter().any(|(_, value)| value.content() == content);
        let special = self.named.iter().map(|(_, value)| value).chain(&self.extra);
        let new =
            special.filter(|value| added.values().all(|entry| entry.content != value.content())).map(
                |value| match value {
                    TokenValue::Text(text) => AddedEntry::special(text.clone()),
                    TokenValue::Entry(entry) => entry.clone(),
                },
            );
        let all = added.values().cloned().chain(new);
        all.map(|entry| AddedEntry { special: entry.special || is_named(&entry.content), ..entry }.token()).collect()
    }
}

impl TokenValue {
    fn content(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Entry(entry) => &entry.content,
        }
    }
}

/// `model_max_length`, or 77 where the files set no limit.
fn max_length(config: &Map<String, Value>) -> Result<usize, String> {
    let length = match config.get("model_max_length") {
        None | Some(Value::Null) => return Ok(DEFAULT_MAX_LENGTH),
        Some(value) => value.as_f64().ok_or_else(|| "model_max_length is not a number".to_owned())?,
    };
    if length >= UNLIMITED {
        return Ok(DEFAULT_MAX_LENGTH);
    }
    if length < 3.0 || length.fract() != 0.0 {
        return Err(format!("model_max_length is {length}, which leaves no room for BOS, a token and EOS"));
    }
    Ok(length as usize)
}

/// A JSON file, or None where it does not exist.
fn json<T: DeserializeOwned>(files: Files, path: &Path) -> Result<Option<T>, TextError> {
    let Some(text) = files.text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| malformed(path, error.to_string()))
}

fn malformed(path: &Path, reason: String) -> TextError {
    TextError::Malformed { path: PathBuf::from(path), reason }
}
