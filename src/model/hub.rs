//! Models by their Hugging Face name: from the local cache if it has them, else downloaded to it.
//! The cache is the one that Python's `huggingface_hub` uses.

use super::Model;
use super::download::{Download, Fault};
use baton_node::exit::{Exit, Failure};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};

/// What a checkpoint may consist of besides its weights, which come last: where they are, the rest
/// is.
const SMALL: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// `ORG/NAME`, and perhaps `@REVISION`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    repo: String,
    revision: Option<String>,
}

impl Name {
    /// What can be a name on the hub.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (text, None),
        };
        let (org, name) = repo.split_once('/')?;
        let word = |word: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=96).contains(&word.len())
                && !word.starts_with(['.', '-'])
                && word.chars().all(plain)
        };
        let fits = word(org) && word(name) && revision.is_none_or(word);
        fits.then(|| Self { repo: repo.to_owned(), revision: revision.map(str::to_owned) })
    }

    fn repo(&self) -> Repo {
        match &self.revision {
            Some(revision) => {
                Repo::with_revision(self.repo.clone(), RepoType::Model, revision.clone())
            }
            None => Repo::model(self.repo.clone()),
        }
    }
}

/// The checkpoint of this name.
pub(super) fn resolve(name: &Name) -> Result<Model, Failure> {
    let cache = Cache::from_env();
    let found = |dir| Model { dir, name: name.repo.clone() };
    if let Some(dir) = cached(&cache.repo(name.repo())) {
        return Ok(found(dir));
    }
    let mut download = Download::start(&cache, name.repo());
    let result = fetch(&mut download, &cache.repo(name.repo()));
    let dir = result.map_err(|fault| failure(name, &cache, &fault))?;
    Ok(found(dir))
}

/// The directory of a checkpoint that the cache has all of.
fn cached(repo: &CacheRepo) -> Option<PathBuf> {
    let config = repo.get("config.json")?;
    repo.get("tokenizer.json")?;
    if repo.get(WEIGHTS).is_none() {
        let index = repo.get(INDEX)?;
        let shards = shards(&index).ok()?;
        shards.iter().try_for_each(|shard| repo.get(shard).map(drop))?;
    }
    config.parent().map(Path::to_owned)
}

/// Downloads what is missing, the weights last.
fn fetch(download: &mut Download, repo: &CacheRepo) -> Result<PathBuf, Fault> {
    let there = download.files()?;
    let has = |file: &str| there.iter().any(|there| there == file);
    for file in ["config.json", "tokenizer.json"] {
        if !has(file) {
            return Err(Fault::Lacks(file));
        }
    }
    let mut get = |file: &str| match repo.get(file) {
        Some(path) => Ok(path),
        None => download.get(file),
    };
    let config = get(SMALL[0])?;
    for file in SMALL.into_iter().filter(|file| has(file)) {
        get(file)?;
    }
    if has(WEIGHTS) {
        get(WEIGHTS)?;
    } else if has(INDEX) {
        let index = get(INDEX)?;
        for shard in shards(&index)? {
            get(&shard)?;
        }
    } else {
        return Err(Fault::Lacks("model.safetensors or model.safetensors.index.json"));
    }
    config.parent().map(Path::to_owned).ok_or(Fault::Lacks("config.json"))
}

/// The files that an index names.
fn shards(index: &Path) -> Result<Vec<String>, Fault> {
    let unreadable = |why: String| Fault::Index(format!("{}: {why}", index.display()));
    let text = std::fs::read_to_string(index).map_err(|error| unreadable(error.to_string()))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| unreadable("no weight_map".into()))?;
    let mut files: Vec<String> =
        map.values().filter_map(|file| file.as_str().map(str::to_owned)).collect();
    files.sort_unstable();
    files.dedup();
    // Nothing outside the directory.
    match files.iter().find(|file| file.contains(['/', '\\']) || file.starts_with('.')) {
        Some(file) => Err(unreadable(format!("weight_map names {file:?}"))),
        None => Ok(files),
    }
}

fn failure(name: &Name, cache: &Cache, fault: &Fault) -> Failure {
    let exit = match fault {
        Fault::NoModel | Fault::NotAllowed | Fault::Lacks(_) | Fault::Index(_) => Exit::Config,
        _ => Exit::Unavailable,
    };
    let failure = Failure::new(exit, format!("--model {}: {fault}", name.repo));
    let hint = match fault {
        Fault::NotAllowed => format!(
            "ask for access on its page and put a token into {}",
            cache.token_path().display()
        ),
        Fault::NoModel => "is the name right? a directory is named with a / or ./ before it".into(),
        Fault::Lacks(_) | Fault::Index(_) => {
            "only checkpoints with safetensors can be loaded".into()
        }
        Fault::Digest { .. } => "run the command again: what was wrong has been removed".into(),
        _ => format!(
            "run the command again: what has come stays in {}; or name a directory",
            cache.path().display()
        ),
    };
    failure.with_hint(hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_have_two_words() {
        let name = |repo: &str, revision: Option<&str>| {
            Some(Name { repo: repo.to_owned(), revision: revision.map(str::to_owned) })
        };
        assert_eq!(Name::parse("Qwen/Qwen3-0.6B"), name("Qwen/Qwen3-0.6B", None));
        assert_eq!(Name::parse("a/b@v1.0"), name("a/b", Some("v1.0")));
        for no in
            ["", "a", "/a/b", "./a", "../a", "a/b/c", "a/", "a/b@", "a/b@x/y", "a b/c", "a/.b"]
        {
            assert_eq!(Name::parse(no), None, "{no}");
        }
    }

    #[test]
    fn an_index_names_each_shard_once_and_none_elsewhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            shards(file.path()).ok()
        };
        let good =
            r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        assert_eq!(read(good).unwrap(), ["1.safetensors", "2.safetensors"]);
        assert_eq!(read(r#"{"weight_map": {"a": "../x"}}"#), None);
        assert_eq!(read("{}"), None);
        assert_eq!(read("{"), None);
    }
}
