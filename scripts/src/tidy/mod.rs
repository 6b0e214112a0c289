//! `cargo xtask tidy`: the rules of the house that a compiler does not check. Every finding names
//! file and line and says what to do.

mod layout;
mod pure;
mod rooms;
mod wording;

use crate::failure::Failure;
use crate::source::Source;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// Runs the checks of this module, then the formatter and, unless told otherwise, clippy.
pub(crate) fn run(root: &Path, clippy: bool) -> Result<(), Failure> {
    let findings = Tree::read(root)?.check();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        return Err(Failure::new(format!("tidy: {} findings", findings.len())));
    }
    cargo(root, &["fmt", "--all", "--check"], "run `cargo fmt --all`")?;
    if clippy {
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        cargo(root, &lints, "mend the code, or allow the lint where it stands, with a reason")?;
    }
    println!("tidy: clean");
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str], hint: &str) -> Result<(), Failure> {
    let status = Command::new("cargo").args(arguments).current_dir(root).status()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("tidy: `cargo {}` failed; {hint}", arguments.join(" "))))
}

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    /// What is wrong and what to do, in one sentence.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A text file of the project.
struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.extension() == "rs"
    }

    fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// The top-level folder; the root package's own `src` and `tests` have no room.
    fn room(&self) -> &str {
        match self.path.split_once('/') {
            Some(("src" | "tests", _)) | None => "",
            Some((room, _)) => room,
        }
    }

    /// Files that hold nothing but tests, such as `tests.rs` or `pool_tests.rs`.
    fn is_test(&self) -> bool {
        let folder = |part| matches!(part, "tests" | "benches");
        self.path.ends_with("tests.rs") || self.path.split('/').any(folder)
    }

    fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    fn source(&self) -> Source {
        Source::read(&self.text)
    }
}

/// What the checks look at: every file that is, or is about to be, under version control.
struct Tree {
    files: Vec<File>,
    /// All paths, also of files that nobody reads.
    paths: Vec<String>,
}

/// The kinds of file that people write and read.
const READ: [&str; 11] =
    ["rs", "toml", "md", "py", "proto", "sh", "yml", "yaml", "service", "jinja", "txt"];

impl Tree {
    fn read(root: &Path) -> Result<Self, Failure> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr);
            return Err(Failure::new(format!("tidy: `git ls-files` failed: {}", said.trim())));
        }
        let mut files = Vec::new();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        // A deleted file may still be listed.
        let paths: Vec<&str> = listed.split('\0').filter(|p| root.join(p).is_file()).collect();
        for path in &paths {
            let kept = READ.iter().any(|kind| path.ends_with(&format!(".{kind}")))
                || path.starts_with(".ci/");
            // Generated code answers to its generator.
            if !kept || path.starts_with("proto/src/gen/") {
                continue;
            }
            let text = std::fs::read_to_string(root.join(path))
                .map_err(|error| Failure::new(format!("tidy: {path}: {error}")))?;
            files.push(File { path: (*path).to_owned(), text });
        }
        Ok(Self { files, paths: paths.into_iter().map(str::to_owned).collect() })
    }

    fn check(&self) -> Vec<Finding> {
        let checks = [
            layout::file_lengths,
            layout::function_lengths,
            layout::module_docs,
            rooms::edges,
            rooms::unsafe_code,
            rooms::forbids,
            pure::cores,
            pure::core_manifests,
            pure::internal_request,
            pure::router_json,
            wording::markers,
            wording::machine_paths,
            wording::links,
        ];
        let mut findings: Vec<Finding> = checks.iter().flat_map(|check| check(self)).collect();
        findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
        findings
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

#[cfg(test)]
mod sample {
    //! Trees in memory, for the checks' tests.
    use super::{File, Finding, Tree};

    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let paths = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        Tree { files: files.iter().map(file).collect(), paths }
    }

    /// Where a check finds fault, as `path:line`.
    pub(super) fn faults(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
        check(&tree(files)).iter().map(|f| format!("{}:{}", f.path, f.line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_place_and_advice() {
        let tree = sample::tree(&[("kv/src/pool.rs", "fn a() {}\n")]);
        let found = tree.check();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().starts_with("kv/src/pool.rs:1: "), "{}", found[0]);
    }

    #[test]
    fn this_project_is_tidy() -> Result<(), Failure> {
        let root = crate::root();
        let findings = Tree::read(&root)?.check();
        let listed: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(listed.is_empty(), "\n{}", listed.join("\n"));
        Ok(())
    }
}
