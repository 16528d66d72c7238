//! Patterns of file names: those of `changes` and `exists`, and those of `artifacts` and `cache`.

use regex::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 4 << 10;
/// The largest compiled pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Whose rules a pattern follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Ruby's `File.fnmatch` with `PATHNAME`, `DOTMATCH` and `EXTGLOB`, as `changes` and `exists` use it: `**/` is any
    /// folders or none, and a `**` anywhere else is a `*`.
    Fnmatch,
    /// The runner's, as `artifacts` and `cache` use it: a `**` at the end is everything below, too.
    Doublestar,
}

/// A pattern of file names. A leading dot is matched as any other character.
#[derive(Clone, Debug)]
pub struct Glob {
    regex: Regex,
    prefix: String,
}

impl Glob {
    /// Reads a pattern. A leading `./` or `/` counts for nothing in the runner's; by `fnmatch` it matches no name.
    ///
    /// # Errors
    /// The pattern is too long, or no pattern.
    pub fn new(pattern: &str, style: Style) -> Result<Self, String> {
        if pattern.len() > MAX_BYTES {
            return Err(format!("a pattern is longer than {MAX_BYTES} bytes"));
        }
        let pattern = match style {
            Style::Fnmatch => pattern,
            Style::Doublestar => pattern.strip_prefix("./").unwrap_or(pattern).trim_start_matches('/'),
        };
        let source = format!("^(?:{})$", translated(pattern, style));
        let built = RegexBuilder::new(&source).size_limit(MAX_COMPILED_BYTES).dot_matches_new_line(true).build();
        let regex = built.map_err(|_| format!("`{pattern}` is no pattern of file names"))?;
        let literal = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
        let prefix = pattern[..literal].to_owned();
        Ok(Self { regex, prefix })
    }

    /// Whether it is the name of this file, written with `/` from the root of the repository.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.prefix) && self.regex.is_match(path)
    }
}

/// Whether a text has anything that makes it a pattern.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn translated(pattern: &str, style: Style) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut braces = 0_usize;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let starts_part = at == 0 || matches!(chars[at - 1], '/' | '{' | ',');
        match c {
            '*' if chars.get(at + 1) == Some(&'*') => {
                let stars = chars[at..].iter().take_while(|c| **c == '*').count();
                let next = chars.get(at + stars);
                if starts_part && next == Some(&'/') {
                    out.push_str("(?:[^/]+/)*");
                    at += 1;
                } else if starts_part && next.is_none() && style == Style::Doublestar {
                    out.push_str(".*");
                } else {
                    out.push_str("[^/]*");
                }
                at += stars;
                continue;
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => match class(&chars, at) {
                Some((class, length)) => {
                    out.push_str(&class);
                    at += length;
                    continue;
                }
                None => out.push_str("\\["),
            },
            '{' if closes(&chars[at..]) => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            '\\' if at + 1 < chars.len() => {
                at += 1;
                out.push_str(&regex::escape(&chars[at].to_string()));
            }
            _ => out.push_str(&regex::escape(&c.to_string())),
        }
        at += 1;
    }
    out
}

/// Whether the brace that a text begins with has its end.
fn closes(chars: &[char]) -> bool {
    let mut depth = 0_usize;
    for c in chars {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return true,
            '}' => depth -= 1,
            _ => {}
        }
    }
    false
}

/// A class of characters as a regular expression, and how long it is; `None` if it has no end.
fn class(chars: &[char], start: usize) -> Option<(String, usize)> {
    let mut at = start + 1;
    let negated = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let first = at;
    while *chars.get(at)? != ']' || at == first {
        at += 1;
    }
    let inner: String = chars[first..at]
        .iter()
        .map(|c| if matches!(c, '[' | ']' | '\\' | '^' | '&' | '~') { format!("\\{c}") } else { c.to_string() })
        .collect();
    Some((format!("[{}{inner}]", if negated { "^/" } else { "" }), at + 1 - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(pattern: &str, style: Style, path: &str) -> bool {
        Glob::new(pattern, style).expect(pattern).matches(path)
    }

    #[test]
    fn changes_and_exists_are_matched_as_by_fnmatch() {
        for (pattern, path, wanted) in [
            ("Dockerfile", "Dockerfile", true),
            ("Dockerfile", "x/Dockerfile", false),
            ("*.md", "a.md", true),
            ("*.md", "docs/a.md", false),
            ("*.md", ".a.md", true),
            ("**/*.md", "a.md", true),
            ("**/*.md", "docs/x/a.md", true),
            ("sub/**/*.txt", "sub/a.txt", true),
            ("sub/**/*.txt", "sub/x/y.txt", true),
            ("docs/**", "docs/a", true),
            ("docs/**", "docs/a/b", false),
            ("docs/**/*", "docs/a/b", true),
            ("*.{rb,py,sh}", "x.py", true),
            ("{a,b/**/*}", "b/c/d", true),
            ("src/?.c", "src/a.c", true),
            ("src/?.c", "src//.c", false),
            ("src/[ab].c", "src/b.c", true),
            ("src/[!ab].c", "src/b.c", false),
            ("src/[!ab].c", "src/c.c", true),
            ("a[", "a[", true),
            ("a{b", "a{b", true),
            ("./a", "a", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a+b.c", "a+b.c", true),
            ("a**b", "axxb", true),
        ] {
            assert_eq!(is(pattern, Style::Fnmatch, path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn artifacts_are_matched_as_by_the_runner() {
        for (pattern, path, wanted) in [
            ("out/**", "out/a/b", true),
            ("**", "a/b", true),
            ("out/**/*", "out/a", true),
            ("/out/*", "out/a", true),
            ("./out/*", "out/a", true),
            ("out/*", "out/a/b", false),
        ] {
            assert_eq!(is(pattern, Style::Doublestar, path), wanted, "{pattern} {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_read_or_refused(pattern in r"[\[\]{}*?!^,\\/a-c&~.-]{0,40}", path in "[a-c/.]{0,20}") {
            for style in [Style::Fnmatch, Style::Doublestar] {
                if let Ok(glob) = Glob::new(&pattern, style) {
                    let _either = glob.matches(&path);
                }
            }
        }
    }
}
