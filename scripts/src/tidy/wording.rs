//! What no file may say: unfinished business, the paths of somebody's machine, and links that lead
//! nowhere.

use super::{Finding, Tree};
use crate::source::has_word;

/// Spelled in halves, so that this file does not find itself.
const MARKERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const MACHINE_FOLDERS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Unfinished work is finished, or filed where somebody will see it.
pub(super) fn markers(tree: &Tree) -> Vec<Finding> {
    lines(tree, |line| {
        let marker = MARKERS.iter().find(|marker| has_word(line, marker))?;
        Some(format!("`{marker}`: do it now, or file an issue and say here what holds today"))
    })
}

/// A path that exists on one machine only.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    lines(tree, |line| {
        let folder = MACHINE_FOLDERS.iter().find(|folder| starts_a_path(line, folder))?;
        Some(format!("`{folder}…` is a path of one machine: name it relative to the project"))
    })
}

/// A page that points to another one points to something that exists.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.extension() == "md") {
        for (at, line) in file.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = target.split('#').next().unwrap_or_default();
                if target.contains("://") || path.is_empty() {
                    continue;
                }
                let path = resolve(&file.path, path);
                let inside = format!("{path}/");
                if !tree.paths.iter().any(|known| *known == path || known.starts_with(&inside)) {
                    let message = format!("`{path}` does not exist: mend the link");
                    found.push(file.finding(at + 1, message));
                }
            }
        }
    }
    found
}

/// A link's path seen from the root.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// In the middle of a URL or of a longer path the same letters are harmless.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"./_-}".contains(c))
    })
}

fn lines(tree: &Tree, fault: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for (at, line) in file.text.lines().enumerate() {
            found.extend(fault(line).map(|message| file.finding(at + 1, message)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::faults;
    use super::*;

    #[test]
    fn unfinished_business_is_found() {
        for marker in MARKERS {
            let text = format!("fine\n// {marker}: later\n{marker}S are fine\n");
            assert_eq!(faults(markers, &[("docs/a.md", &text)]), ["docs/a.md:2"]);
        }
    }

    #[test]
    fn paths_of_one_machine_are_found_and_urls_are_not() {
        for folder in MACHINE_FOLDERS {
            let text = format!("open(\"{folder}x\")\nhttps://a.example{folder}x\n../a{folder}x\n");
            assert_eq!(faults(machine_paths, &[("a.py", &text)]), ["a.py:1"]);
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let page = "[a](b.md#top) [b](../README.md) [c](https://x.example/y.md) [d](#here)\n\
                    [e](gone.md), [f](../docs) and [g](../docs/b)\n";
        let files = [("docs/a.md", page), ("docs/b.md", ""), ("README.md", "[h](docs/a.md)")];
        assert_eq!(faults(links, &files), ["docs/a.md:2", "docs/a.md:2"]);
    }
}
