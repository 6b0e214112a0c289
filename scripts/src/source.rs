//! A light reader of Rust source: what is code, what is comment or literal, where functions begin
//! and end, and which lines belong to tests. It knows just enough of the grammar for `tidy`, so
//! that the project's own commands build in a second and depend on no parser.

/// A Rust file, read once for all checks.
pub(crate) struct Source {
    /// The file with comments and literals blanked; lines keep their numbers.
    code: Vec<Vec<char>>,
    /// For every line, whether it lies in an item under `#[cfg(test)]`.
    test: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let code: Vec<Vec<char>> = blank(text).split('\n').map(|l| l.chars().collect()).collect();
        let mut source = Self { test: vec![false; code.len()], code };
        source.mark_tests();
        source
    }

    /// The code of every line outside `#[cfg(test)]`, with its number from 1.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        self.numbered().zip(&self.test).filter(|(_, test)| !**test).map(|(line, _)| line)
    }

    /// The code of every line, with its number from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        self.code.iter().enumerate().map(|(at, line)| (at + 1, line.iter().collect()))
    }

    /// All functions that have a body, in order.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, line) in self.code.iter().enumerate() {
            for column in word_starts(line, "fn") {
                let name: String = line[column + 2..]
                    .iter()
                    .skip_while(|c| c.is_whitespace() || **c == '$')
                    .take_while(|c| is_word(**c))
                    .collect();
                // `fn(u32) -> u32` is a type.
                if name.is_empty() {
                    continue;
                }
                if let Some(end) = self.end_of_item(at, column, true) {
                    found.push(Function { name, line: at + 1, lines: end - at + 1 });
                }
            }
        }
        found
    }

    fn mark_tests(&mut self) {
        for at in 0..self.code.len() {
            let line: String = self.code[at].iter().filter(|c| !c.is_whitespace()).collect();
            if !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test,") {
                continue;
            }
            let after = self.code[at].iter().position(|c| *c == ']').unwrap_or(0) + 1;
            let end = self.end_of_item(at, after, false).unwrap_or(self.code.len() - 1);
            self.test[at..=end].fill(true);
        }
    }

    /// The line on which the item that starts here ends: the brace that closes its body, or its
    /// semicolon. With `body`, an item without a body has no end.
    fn end_of_item(&self, line: usize, column: usize, body: bool) -> Option<usize> {
        let (mut braces, mut others) = (0_i32, 0_i32);
        for at in line..self.code.len() {
            let from = if at == line { column } else { 0 };
            for c in self.code[at].iter().skip(from) {
                match c {
                    '(' | '[' => others += 1,
                    ')' | ']' => others -= 1,
                    // A brace within parentheses before the body is a const argument.
                    '{' if others == 0 || braces > 0 => braces += 1,
                    '}' if braces > 0 => {
                        braces -= 1;
                        if braces == 0 {
                            return Some(at);
                        }
                    }
                    ';' if braces == 0 && others == 0 => return (!body).then_some(at),
                    _ => {}
                }
            }
        }
        None
    }
}

/// Whether `word` stands in `line` as a whole word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    !word_starts(&line.chars().collect::<Vec<_>>(), word).is_empty()
}

fn word_starts(line: &[char], word: &str) -> Vec<usize> {
    let word: Vec<char> = word.chars().collect();
    let last = line.len().saturating_sub(word.len() - 1);
    (0..last)
        .filter(|&at| {
            line[at..].starts_with(&word)
                && (at == 0 || !is_word(line[at - 1]))
                && line.get(at + word.len()).is_none_or(|c| !is_word(*c))
        })
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces everything in comments and literals by spaces; line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            let end = end.min(chars.len());
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => {
            Some(chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n))
        }
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(quoted_end(chars, at, '"')),
        '\'' if next == Some('\\') => Some(quoted_end(chars, at, '\'')),
        // Otherwise a lifetime or a label.
        '\'' => (chars.get(at + 2) == Some(&'\'')).then_some(at + 3),
        'r' => raw_end(chars, at),
        _ => None,
    }
}

fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// `r"…"`, `r#"…"#` and, since the prefix letter is skipped as code, `br` and `cr` too.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let prefixed = at > 0 && is_word(chars[at - 1]);
    let prefix_is_b_or_c =
        prefixed && matches!(chars[at - 1], 'b' | 'c') && (at < 2 || !is_word(chars[at - 2]));
    if prefixed && !prefix_is_b_or_c {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = at + 2 + hashes;
    while end < chars.len() {
        let closed = chars[end] == '"'
            && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        end += 1;
        if closed {
            return Some(end + hashes);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = r##"let a = "un\"safe"; // unsafe
/* unsafe /* unsafe */ unsafe */ let b = r#"unsafe " unsafe"#; let c = 'u'; let d = '\'';
fn e<'unsafe_>(x: &'unsafe_ str) { br"unsafe"; }"##;
        let code = blank(text);
        assert!(!has_word(&code, "unsafe"), "{code}");
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("let b =") && code.contains("let d ="), "{code}");
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "struct S { f: fn(u32) -> u32 }\ntrait T { fn bodyless(a: [u8; 3]); }\n\
                    fn one() { let s = \"}\"; }\npub(crate) fn three(a: [u8; 2]) -> u8\n\
                    where u8: Copy { // }\n    if a[0] == 0 { 1 } else { 2 } }\n";
        let found = Source::read(text).functions();
        let expected = [("one", 3, 1), ("three", 4, 3)];
        let got: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn test_modules_are_told_from_shipped_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use x;\n}\nfn b() {}\n\
                    #[cfg(test)]\nuse y;\nfn c() {}\n";
        let shipped: Vec<usize> = Source::read(text)
            .shipped()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, _)| number)
            .collect();
        assert_eq!(shipped, [1, 6, 9]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe") && has_word("a::tokio", "tokio"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe") && !has_word("operand", "rand"));
        assert!(!has_word("", "rand"));
    }
}
