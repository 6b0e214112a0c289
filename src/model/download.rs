//! Files of a repository on the hub, one after the other, with progress.
//!
//! The client of the hub knows no time-outs, so it works on a thread of its own: if nothing comes
//! for a while, it is left alone. The process that cannot have its model ends anyway.

use super::digest;
use baton_node::exit::tell;
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// A server from which nothing comes for so long is not there.
const SILENCE: Duration = Duration::from_mins(1);
/// Connections that break are tried again so often, each time from where they broke.
const RETRIES: usize = 3;

/// Why a model cannot be had from the hub.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("not in the cache, and the hub cannot be reached: {0}")]
    Unreachable(String),
    #[error("not in the cache, and the hub says nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the hub has no such model, or does not show it without a token")]
    NoModel,
    #[error("the hub wants a token that is allowed to see it")]
    NotAllowed,
    #[error("the repository has no {0}")]
    Lacks(&'static str),
    #[error("{0}")]
    Index(String),
    #[error("{file}: the bytes that came are not those that the hub announced")]
    Digest { file: String },
    #[error("{file}: another process is downloading it")]
    Busy { file: String },
    #[error("{file}: {why}")]
    File { file: String, why: String },
}

enum Ask {
    Files,
    Get(String),
}

enum Said {
    /// Of a file: bytes in all.
    Begins(u64),
    /// Bytes that have come.
    Came(u64),
    Files(Result<Vec<String>, Fault>),
    Got(Result<PathBuf, Fault>),
}

/// A repository that is being downloaded.
pub(super) struct Download {
    ask: SyncSender<Ask>,
    said: Receiver<Said>,
}

impl Download {
    /// Asks nothing yet.
    pub(super) fn start(cache: &Cache, repo: Repo) -> Self {
        let (ask, asked) = mpsc::sync_channel(1);
        let (say, said) = mpsc::sync_channel(64);
        let cache = cache.clone();
        let work = move || work(&cache, repo, &asked, &say);
        // Without a thread nobody answers, which is told as what it is.
        let _ = std::thread::Builder::new().name("hub".into()).spawn(work);
        Self { ask, said }
    }

    /// Which files there are.
    pub(super) fn files(&mut self) -> Result<Vec<String>, Fault> {
        self.ask(Ask::Files);
        loop {
            if let Said::Files(files) = self.hear()? {
                return files;
            }
        }
    }

    /// Downloads one to the cache, from where an earlier attempt ended.
    pub(super) fn get(&mut self, file: &str) -> Result<PathBuf, Fault> {
        self.ask(Ask::Get(file.to_owned()));
        let mut bar = Bar::new(file);
        loop {
            match self.hear()? {
                Said::Begins(bytes) => bar.begins(bytes),
                Said::Came(bytes) => bar.came(bytes),
                Said::Got(got) => {
                    bar.ends(got.is_ok());
                    return got;
                }
                Said::Files(_) => {}
            }
        }
    }

    fn ask(&self, ask: Ask) {
        // If nobody hears it, nobody answers either.
        let _ = self.ask.send(ask);
    }

    fn hear(&self) -> Result<Said, Fault> {
        self.said.recv_timeout(SILENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => Fault::Silent,
            RecvTimeoutError::Disconnected => Fault::Unreachable("its answer is none".to_owned()),
        })
    }
}

/// The thread's work: answers until nobody asks.
fn work(cache: &Cache, repo: Repo, asked: &Receiver<Ask>, say: &SyncSender<Said>) {
    let mut builder = ApiBuilder::from_cache(cache.clone())
        .with_progress(false)
        .with_retries(RETRIES)
        .with_user_agent("baton", env!("CARGO_PKG_VERSION"));
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build().map(|api| api.repo(repo));
    for ask in asked {
        let answer = match (&api, ask) {
            (Ok(api), Ask::Files) => Said::Files(files(api)),
            (Ok(api), Ask::Get(file)) => Said::Got(get(api, &file, say)),
            (Err(error), Ask::Files) => Said::Files(Err(of_repo(error))),
            (Err(error), Ask::Get(_)) => Said::Got(Err(of_repo(error))),
        };
        if say.send(answer).is_err() {
            return;
        }
    }
}

fn files(api: &ApiRepo) -> Result<Vec<String>, Fault> {
    let info = api.info().map_err(|error| of_repo(&error))?;
    Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
}

fn get(api: &ApiRepo, file: &str, say: &SyncSender<Said>) -> Result<PathBuf, Fault> {
    let came = Came { say: say.clone() };
    let pointer = api.download_with_progress(file, came).map_err(|error| of_file(file, &error))?;
    let failed = |error: &dyn std::fmt::Display| Fault::File {
        file: file.to_owned(),
        why: error.to_string(),
    };
    // The cache names what it keeps by the tag that the hub announced.
    let blob = std::fs::canonicalize(&pointer).map_err(|error| failed(&error))?;
    let tag = blob.file_name().map(|tag| tag.to_string_lossy().into_owned()).unwrap_or_default();
    if digest::fits(&blob, &tag).map_err(|error| failed(&error))? == Some(false) {
        for path in [&pointer, &blob] {
            std::fs::remove_file(path).map_err(|error| failed(&error))?;
        }
        return Err(Fault::Digest { file: file.to_owned() });
    }
    Ok(pointer)
}

/// Reports what comes.
struct Came {
    say: SyncSender<Said>,
}

impl Progress for Came {
    fn init(&mut self, size: usize, _file: &str) {
        // If nobody listens any more, the process ends.
        let _ = self.say.send(Said::Begins(size as u64));
    }

    fn update(&mut self, size: usize) {
        let _ = self.say.send(Said::Came(size as u64));
    }

    fn finish(&mut self) {}
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

fn of_repo(error: &ApiError) -> Fault {
    match status(error) {
        // Also of what must not be seen without a token.
        Some(404 | 401) => Fault::NoModel,
        Some(403) => Fault::NotAllowed,
        _ => Fault::Unreachable(error.to_string()),
    }
}

fn of_file(file: &str, error: &ApiError) -> Fault {
    let file = file.to_owned();
    match (status(error), error) {
        (Some(401 | 403), _) => Fault::NotAllowed,
        (_, ApiError::LockAcquisition(_)) => Fault::Busy { file },
        _ => Fault::File { file, why: error.to_string() },
    }
}

/// What waiting looks like: a bar on a terminal, a few lines elsewhere.
struct Bar {
    file: String,
    shown: Option<ProgressBar>,
    bytes: u64,
    came: u64,
    /// The last quarter that was written where there is no bar.
    quarter: u64,
}

impl Bar {
    fn new(file: &str) -> Self {
        let shown = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} [{bar:40}] {bytes}/{total_bytes} ({bytes_per_sec}, {eta})";
            let bar = ProgressBar::new(0).with_message(file.to_owned());
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { file: file.to_owned(), shown, bytes: 0, came: 0, quarter: 0 }
    }

    fn begins(&mut self, bytes: u64) {
        (self.bytes, self.came) = (bytes, 0);
        if let Some(bar) = &self.shown {
            bar.set_length(bytes);
            bar.set_position(0);
        }
    }

    fn came(&mut self, bytes: u64) {
        self.came += bytes;
        if let Some(bar) = &self.shown {
            bar.set_position(self.came);
            return;
        }
        let quarter = self.came * 4 / self.bytes.max(1);
        if quarter > self.quarter {
            self.quarter = quarter;
            tell(&format_args!("downloading {}: {} %", self.file, quarter * 25));
        }
    }

    fn ends(&self, well: bool) {
        match &self.shown {
            Some(bar) if well => bar.finish(),
            Some(bar) => bar.abandon(),
            None => {}
        }
    }
}
