//! How long things may be, and that every module says what it is.

use super::{Finding, Tree};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const ARCHITECTURE_LINES_MAX: usize = 300;

/// Files that a person can read in one sitting.
pub(super) fn file_lengths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        let (max, advice) = match (file.path.as_str(), file.extension()) {
            (ARCHITECTURE, _) => (ARCHITECTURE_LINES_MAX, "leave the detail to a page of its own"),
            (_, "rs" | "py" | "sh" | "proto") => (FILE_LINES_MAX, "split it by what it is about"),
            _ => continue,
        };
        let lines = file.text.lines().count();
        if lines > max {
            found.push(file.finding(max + 1, format!("{lines} lines, at most {max}: {advice}")));
        }
    }
    found
}

/// Functions that fit on a screen.
pub(super) fn function_lengths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for function in file.source().functions() {
            if function.lines > FUNCTION_LINES_MAX {
                let message = format!(
                    "`{}` has {} lines, at most {FUNCTION_LINES_MAX}: give a part of it a name",
                    function.name, function.lines
                );
                found.push(file.finding(function.line, message));
            }
        }
    }
    found
}

/// A first line that says what the module is for.
pub(super) fn module_docs(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.finding(1, "begin with a `//!` line that says what this module is for"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::faults;
    use super::*;

    #[test]
    fn a_file_of_801_lines_is_too_long() {
        let (fits, long) = ("a\n".repeat(800), "a\n".repeat(801));
        let files = [("a.rs", fits.as_str()), ("b.rs", &long), ("c.py", &long), ("d.md", &long)];
        assert_eq!(faults(file_lengths, &files), ["b.rs:801", "c.py:801"]);
    }

    #[test]
    fn the_architecture_page_stays_short() {
        let (fits, long) = ("a\n".repeat(300), "a\n".repeat(301));
        assert!(faults(file_lengths, &[(ARCHITECTURE, &fits)]).is_empty());
        assert_eq!(faults(file_lengths, &[(ARCHITECTURE, &long)]), ["docs/ARCHITECTURE.md:301"]);
    }

    #[test]
    fn a_function_of_71_lines_is_too_long() {
        let function = |lines: usize| format!("\nfn f() {{\n{}}}\n", "a;\n".repeat(lines - 2));
        assert!(faults(function_lengths, &[("a.rs", &function(70))]).is_empty());
        assert_eq!(faults(function_lengths, &[("a.rs", &function(71))]), ["a.rs:2"]);
    }

    #[test]
    fn a_module_without_a_doc_line_is_found() {
        let files = [("a.rs", "//! A.\n"), ("b.rs", "// B.\n"), ("c.rs", ""), ("d.py", "")];
        assert_eq!(faults(module_docs, &files), ["b.rs:1", "c.rs:1"]);
    }
}
