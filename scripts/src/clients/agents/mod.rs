//! `cargo xtask clients --agents`: coding agents from npm, each through one whole tool loop upon the
//! scripted engine. An agent is asked for a word that only a file holds. The model calls the agent's
//! own tool; the result comes back to Baton; only then does the model say what the agent must print.

mod harness;
mod loopback;
mod npm;
mod said;
mod script;
mod traffic;

use super::cluster::Cluster;
use super::succeed;
use crate::failure::{Failure, Stop};
use crate::process::{self, Running};
use harness::Harness;
use said::Said;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Tells the part of the stage that runs in a network of its own; for [`run`] alone.
pub(crate) const INSIDE: &str = "--agents-inside";
/// An agent takes seconds.
const AGENT_MAX: Duration = Duration::from_mins(2);
/// All agents, with clusters that start and stop.
const ALL_MAX: Duration = Duration::from_mins(15);
/// A request is counted when its answer has been written, which the agent may see a moment before.
const COUNTED_MAX: Duration = Duration::from_secs(5);
/// What is shown of what a failing agent printed, from the end.
const SHOWN_CHARS: usize = 6_000;
/// What an agent gets to know of this machine.
const ENVIRONMENT: [&str; 3] = ["PATH", "LANG", "TMPDIR"];

/// Installs the agents and runs each of them.
pub(crate) fn run(root: &Path) -> Result<(), Stop> {
    npm::install(root)?;
    let build = ["build", "--package", "baton"];
    succeed("cargo build", Command::new("cargo").args(build).current_dir(root).status()?)?;
    match loopback::alone() {
        Ok(mut alone) => {
            alone.arg(std::env::current_exe()?).args(["clients", INSIDE]);
            let mut running = Running::new(alone.current_dir(root).spawn()?);
            let late = || Failure::new("the agents took too long");
            succeed("the agents", running.wait(ALL_MAX)?.ok_or_else(late)?)?;
        }
        Err(why) => {
            println!(
                "the agents see the network of this machine, since they cannot be kept from it: {why}"
            );
            inside(root)?;
        }
    }
    Ok(())
}

/// Runs each agent in the network that there is.
#[expect(clippy::disallowed_methods, reason = "an agent is measured in real time")]
pub(crate) fn inside(root: &Path) -> Result<(), Failure> {
    let programs = npm::programs(root)?;
    let folder = std::env::temp_dir().join(format!("baton-agents-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let model = script::model(root, &folder)?;
    let mut failed = Vec::new();
    for harness in Harness::ALL {
        let (name, started) = (harness.program(), Instant::now());
        match Run::new(harness, &folder, &model).and_then(|run| run.judge(root, &programs)) {
            Ok(()) => println!("{name}: ok, {:.1} s", started.elapsed().as_secs_f64()),
            Err(failure) => {
                println!("{name}: FAILED\n{failure}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        std::fs::remove_dir_all(folder)?;
        return Ok(());
    }
    let (failed, folder) = (failed.join(", "), folder.display());
    Err(Failure::new(format!("failed: {failed}; what they left is in {folder}")))
}

/// One agent's tool loop.
struct Run<'a> {
    harness: Harness,
    model: &'a Path,
    script: PathBuf,
    /// Has the output, too.
    home: PathBuf,
    /// Where the agent is started. It has the file.
    place: PathBuf,
    word: String,
    answer: String,
}

impl<'a> Run<'a> {
    fn new(harness: Harness, folder: &Path, model: &'a Path) -> Result<Self, Failure> {
        let folder = folder.join(harness.program());
        let (home, place) = (folder.join("home"), folder.join("place"));
        std::fs::create_dir_all(&home)?;
        std::fs::create_dir_all(&place)?;
        let (word, answer) = (random("word"), format!("The word is {}.", random("answer")));
        let file = place.join("note.txt");
        std::fs::write(&file, format!("{word}\n"))?;
        let script = folder.join("script.jsonl");
        std::fs::write(&script, script::script(harness, &file, &word, &answer))?;
        Ok(Self { harness, model, script, home, place, word, answer })
    }

    /// Plays the loop with a cluster of its own, and says all that is wrong with it.
    fn judge(&self, root: &Path, programs: &Path) -> Result<(), Failure> {
        let (script, model) = (self.script.as_os_str(), self.model.as_os_str());
        let more = ["--engine".as_ref(), "scripted".as_ref(), "--script".as_ref(), script];
        let cluster = Cluster::start(root, &[&more[..], &["--model".as_ref(), model]].concat())?;
        let ended = process::output(&mut self.command(&cluster, programs)?, &self.home, AGENT_MAX)?;
        let metrics = counted(&cluster, self.harness.interface())?;
        cluster.stop()?;

        let mut faults = match ended.status {
            None => vec![format!("it did not end within {} s", AGENT_MAX.as_secs())],
            Some(status) if !status.success() => vec![format!("it ended with {status}")],
            Some(_) => Vec::new(),
        };
        let said = Said::read(self.harness.output(), &ended.stdout);
        faults.extend(said.faults(&self.word, &self.answer));
        faults.extend(said::errors(&ended.stderr));
        faults.extend(traffic::faults(&metrics, self.harness.interface()));
        if faults.is_empty() {
            return Ok(());
        }
        let (stdout, stderr) = (shown(&ended.stdout), shown(&ended.stderr));
        let faults = faults.join("\n  ");
        Err(Failure::new(format!("  {faults}\nstdout:\n{stdout}\nstderr:\n{stderr}")))
    }

    fn command(&self, cluster: &Cluster, programs: &Path) -> Result<Command, Failure> {
        let setup = self.harness.setup(&cluster.url, &self.home);
        if let Some((name, text)) = setup.settings {
            let path = self.home.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, text)?;
        }
        let mut command = Command::new(programs.join(self.harness.program()));
        let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .args(setup.arguments)
            .env_clear()
            .envs(kept)
            .env("HOME", &self.home)
            .envs(setup.environment)
            .current_dir(&self.place);
        Ok(command)
    }
}

/// The metrics, once a good run's requests have been counted, or after [`COUNTED_MAX`].
#[expect(clippy::disallowed_methods, reason = "the router counts in its own time")]
fn counted(cluster: &Cluster, interface: &str) -> Result<String, Failure> {
    let deadline = Instant::now() + COUNTED_MAX;
    loop {
        let metrics = cluster.metrics()?;
        if traffic::complete(&metrics, interface) || Instant::now() >= deadline {
            return Ok(metrics);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A word that nobody can guess; a hasher's random keys are enough for that.
fn random(kind: &str) -> String {
    format!("{kind}-{:016x}", RandomState::new().build_hasher().finish())
}

/// The end of a text.
fn shown(text: &str) -> String {
    let hidden = text.chars().count().saturating_sub(SHOWN_CHARS);
    text.chars().skip(hidden).collect()
}
