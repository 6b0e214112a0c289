//! The text files of a checkpoint directory, read with tolerance for their many forms.

use crate::LoadError;
use serde_json::{Map, Value as Json};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read; real ones end near 40 MB.
const FILE_MAX: u64 = 512 << 20;
/// The names of special tokens that templates may ask for.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the configuration files say.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// Special tokens by the name of their role (`bos_token`, ...).
    pub(crate) special: Vec<(String, String)>,
    /// Whether the text begins with bos; `None` leaves that to tokenizer.json.
    pub(crate) add_bos: Option<bool>,
    /// Chat templates by name, with the file they came from.
    pub(crate) templates: Vec<TemplateSource>,
}

/// A chat template as it is written.
#[derive(Debug)]
pub(crate) struct TemplateSource {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) path: PathBuf,
}

impl TokenizerConfig {
    /// Reads what there is; every file is optional.
    pub(crate) fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("tokenizer_config.json");
        let config = object(&path)?.unwrap_or_default();
        let map = object(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        let token = |name: &str| token_text(config.get(name)).or_else(|| token_text(map.get(name)));
        let special = SPECIAL.iter().filter_map(|name| Some(((*name).to_owned(), token(name)?)));
        Ok(Self {
            special: special.collect(),
            add_bos: config.get("add_bos_token").and_then(Json::as_bool),
            templates: templates(dir, &path, &config)?,
        })
    }

    /// The text of a special token by the name of its role.
    pub(crate) fn token(&self, name: &str) -> Option<&str> {
        self.special.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str())
    }
}

/// chat_template.jinja where present, otherwise what the configuration has.
fn templates(
    dir: &Path,
    config_path: &Path,
    config: &Map<String, Json>,
) -> Result<Vec<TemplateSource>, LoadError> {
    let path = dir.join("chat_template.jinja");
    let template = |name: &str, source: String, path: &Path| TemplateSource {
        name: name.to_owned(),
        source,
        path: path.to_owned(),
    };
    if let Some(source) = read(&path, false)? {
        return Ok(vec![template("default", text(&path, source)?, &path)]);
    }
    let named = |entry: &Json| {
        let name = entry["name"].as_str()?;
        Some(template(name, entry["template"].as_str()?.to_owned(), config_path))
    };
    let list = match config.get("chat_template") {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::String(source)) => {
            return Ok(vec![template("default", source.clone(), config_path)]);
        }
        Some(Json::Array(list)) => list.iter().map(named).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    list.ok_or_else(|| LoadError::Malformed {
        path: config_path.to_owned(),
        reason: "chat_template is neither a string nor a list of {\"name\", \"template\"}"
            .to_owned(),
    })
}

/// A token is written as its text or as an object that has it.
fn token_text(token: Option<&Json>) -> Option<String> {
    let token = token?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// A file that holds one JSON object; `None` if it is absent.
pub(crate) fn object(path: &Path) -> Result<Option<Map<String, Json>>, LoadError> {
    let Some(bytes) = read(path, false)? else { return Ok(None) };
    let malformed = |reason: String| LoadError::Malformed { path: path.to_owned(), reason };
    match serde_json::from_slice(&bytes) {
        Ok(Json::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(malformed("not a JSON object".to_owned())),
        Err(e) => Err(malformed(e.to_string())),
    }
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, LoadError> {
    String::from_utf8(bytes)
        .map_err(|e| LoadError::Malformed { path: path.to_owned(), reason: e.to_string() })
}

/// A file's bytes; `None` if it is absent and not needed.
pub(crate) fn read(path: &Path, needed: bool) -> Result<Option<Vec<u8>>, LoadError> {
    let fail = |source| LoadError::Read { path: path.to_owned(), path_is_needed: needed, source };
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound && !needed => return Ok(None),
        other => other.map_err(fail)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        let bytes = bytes.len() as u64;
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes, limit: FILE_MAX });
    }
    Ok(Some(bytes))
}
