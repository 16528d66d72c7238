//! The expressions of `rules:if`, `workflow:rules:if` and `only:variables`: a parser and an evaluator of their own.
//!
//! A value is text or nothing. Between `&&` and `||` only nothing and false are false, so `"" && "x"` is `"x"`; the whole
//! expression holds only if it is neither nothing, nor false, nor empty.

use regex::Regex;

/// The longest expression, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// How deep brackets may lie in each other.
const MAX_DEPTH: usize = 64;
/// The largest compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Term,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {at}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Where in the expression, in characters from 1.
    pub at: usize,
}

/// What an expression came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// Whether it holds.
    pub holds: bool,
    /// What was odd about it, in words.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
enum Term {
    Null,
    Text(String),
    Variable(String),
    Pattern(Box<Pattern>),
    Compare(Box<Self>, Operator, Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    written: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Match,
    NoMatch,
}

/// What a term is worth.
#[derive(Clone, Debug, PartialEq)]
enum Worth {
    Null,
    Bool(bool),
    Text(String),
}

impl Worth {
    /// Between `&&` and `||`: an empty text counts as true there.
    const fn is_true_inside(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn holds(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Text(text) => !text.is_empty(),
        }
    }
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_BYTES {
            return Err(ExpressionError { message: format!("the expression is longer than {MAX_BYTES} bytes"), at: 1 });
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, end: text.chars().count() + 1 };
        let root = parser.or()?;
        match parser.tokens.get(parser.at) {
            None => Ok(Self { root }),
            Some((token, at)) => Err(unexpected(token, *at)),
        }
    }

    /// What the expression comes to with these variables; `None` is a variable that is not there.
    pub fn evaluate<'v>(&self, variable: &dyn Fn(&str) -> Option<&'v str>) -> Evaluated {
        let mut warnings = Vec::new();
        let worth = worth(&self.root, variable, &mut warnings);
        Evaluated { holds: worth.holds(), warnings }
    }
}

fn worth<'v>(term: &Term, variable: &dyn Fn(&str) -> Option<&'v str>, warnings: &mut Vec<String>) -> Worth {
    match term {
        Term::Null => Worth::Null,
        Term::Text(text) => Worth::Text(text.clone()),
        Term::Variable(name) => variable(name).map_or(Worth::Null, |value| Worth::Text(value.to_owned())),
        Term::Pattern(pattern) => Worth::Text(pattern.written.clone()),
        Term::And(left, right) => {
            let left = worth(left, variable, warnings);
            if left.is_true_inside() { worth(right, variable, warnings) } else { left }
        }
        Term::Or(left, right) => {
            let left = worth(left, variable, warnings);
            if left.is_true_inside() { left } else { worth(right, variable, warnings) }
        }
        Term::Compare(left, operator, right) => {
            let left = worth(left, variable, warnings);
            match operator {
                Operator::Equal => Worth::Bool(left == worth(right, variable, warnings)),
                Operator::Unequal => Worth::Bool(left != worth(right, variable, warnings)),
                Operator::Match => Worth::Bool(matches(&left, right, variable, warnings)),
                Operator::NoMatch => Worth::Bool(!matches(&left, right, variable, warnings)),
            }
        }
    }
}

fn matches<'v>(
    left: &Worth,
    right: &Term,
    variable: &dyn Fn(&str) -> Option<&'v str>,
    warnings: &mut Vec<String>,
) -> bool {
    let text = match left {
        Worth::Null => return false,
        Worth::Bool(value) => value.to_string(),
        Worth::Text(text) => text.clone(),
    };
    if let Term::Pattern(pattern) = right {
        return pattern.regex.is_match(&text);
    }
    let Worth::Text(right) = worth(right, variable, warnings) else { return false };
    match Pattern::parse(&right) {
        Some(Ok(pattern)) => pattern.regex.is_match(&text),
        Some(Err(why)) => {
            warnings.push(format!("`{right}` is no regular expression, so nothing matches it: {why}"));
            false
        }
        None => {
            warnings.push(format!(
                "`{right}` is no regular expression in slashes: as on GitLab, `=~` then asks whether the left side is a part of it"
            ));
            right.contains(&text)
        }
    }
}

impl Pattern {
    /// A text of the form `/…/flags`; `None` if it has another form.
    fn parse(text: &str) -> Option<Result<Self, String>> {
        let inner = text.strip_prefix('/')?;
        let end = inner.rfind('/')?;
        let (body, flags) = (&inner[..end], &inner[end + 1..]);
        flags.chars().all(|flag| "ismU".contains(flag)).then(|| Self::of(body, flags))
    }

    fn of(body: &str, flags: &str) -> Result<Self, String> {
        let written = format!("/{body}/{flags}");
        if body.chars().count() < 2 {
            return Err("a pattern has at least two characters between its slashes".to_owned());
        }
        let body = body.replace("\\/", "/");
        let source = if flags.is_empty() { body } else { format!("(?{}){body}", distinct(flags)) };
        let compiled = regex::RegexBuilder::new(&source).size_limit(MAX_PATTERN_BYTES).build();
        compiled.map(|regex| Self { regex, written }).map_err(|why| short(&why))
    }
}

/// Flags, each once: a regular expression refuses one that is there twice.
fn distinct(flags: &str) -> String {
    let mut seen = String::new();
    seen.extend(
        flags.chars().enumerate().filter(|(at, c)| flags.chars().position(|d| d == *c) == Some(*at)).map(|(_, c)| c),
    );
    seen
}

/// The last line of the regex crate's message, which says what is wrong.
fn short(why: &regex::Error) -> String {
    let text = why.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A pattern of `only`, `except` and `coverage`: `/…/` with flags, as [`Expression`]s have it.
///
/// # Errors
/// It is of that form and no regular expression. `Ok(None)`: it is not of that form.
pub fn pattern(text: &str) -> Result<Option<Regex>, String> {
    Pattern::parse(text).transpose().map(|found| found.map(|pattern| pattern.regex))
}

#[derive(Clone, Debug)]
enum Token {
    Term(Term),
    Operator(Operator),
    And,
    Or,
    Open,
    Close,
}

fn unexpected(token: &Token, at: usize) -> ExpressionError {
    let what = match token {
        Token::Term(_) => "a value",
        Token::Operator(_) => "a comparison",
        Token::And => "`&&`",
        Token::Or => "`||`",
        Token::Open => "`(`",
        Token::Close => "`)`",
    };
    ExpressionError { message: format!("{what} is not expected here"), at }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let wrong = |message: &str| ExpressionError { message: message.to_owned(), at: at + 1 };
        let two: String = chars.iter().skip(at).take(2).collect();
        let (token, length) = match c {
            _ if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' | '\'' => {
                let end =
                    chars.iter().skip(at + 1).position(|d| *d == c).ok_or_else(|| wrong("the quote has no end"))?;
                let inner: String = chars.iter().skip(at + 1).take(end).collect();
                (Token::Term(Term::Text(inner)), end + 2)
            }
            '$' => {
                let name: String =
                    chars.iter().skip(at + 1).take_while(|d| d.is_ascii_alphanumeric() || **d == '_').collect();
                if name.is_empty() {
                    let message = "a variable is written as `$NAME` here, without braces";
                    return Err(wrong(message));
                }
                let length = name.len() + 1;
                (Token::Term(Term::Variable(name)), length)
            }
            '/' => {
                let (body, length) = regex_body(&chars, at).ok_or_else(|| wrong("the pattern has no closing slash"))?;
                let flags: String = chars.iter().skip(at + length).take_while(|d| "ismU".contains(**d)).collect();
                let pattern = Pattern::of(&body, &flags).map_err(|why| wrong(&why))?;
                (Token::Term(Term::Pattern(Box::new(pattern))), length + flags.len())
            }
            _ => match two.as_str() {
                "==" => (Token::Operator(Operator::Equal), 2),
                "!=" => (Token::Operator(Operator::Unequal), 2),
                "=~" => (Token::Operator(Operator::Match), 2),
                "!~" => (Token::Operator(Operator::NoMatch), 2),
                "&&" => (Token::And, 2),
                "||" => (Token::Or, 2),
                _ => {
                    let word: String =
                        chars.iter().skip(at).take_while(|d| d.is_alphanumeric() || **d == '_').collect();
                    if word != "null" {
                        let shown = if word.is_empty() { c.to_string() } else { word };
                        return Err(wrong(&format!(
                            "`{shown}` is not known here: values are `$NAME`, text in quotes, `null` and `/pattern/`"
                        )));
                    }
                    (Token::Term(Term::Null), 4)
                }
            },
        };
        tokens.push((token, at + 1));
        at += length;
    }
    Ok(tokens)
}

/// What stands between the slashes, and how long it is with them.
fn regex_body(chars: &[char], start: usize) -> Option<(String, usize)> {
    let mut at = start + 1;
    loop {
        match chars.get(at)? {
            '\\' => at += 2,
            '/' => break,
            _ => at += 1,
        }
    }
    Some((chars[start + 1..at].iter().collect(), at + 1 - start))
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn or(&mut self) -> Result<Term, ExpressionError> {
        let mut left = self.and()?;
        while let Some((Token::Or, _)) = self.tokens.get(self.at) {
            self.at += 1;
            left = Term::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Term, ExpressionError> {
        let mut left = self.comparison()?;
        while let Some((Token::And, _)) = self.tokens.get(self.at) {
            self.at += 1;
            left = Term::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Term, ExpressionError> {
        let mut left = self.value()?;
        while let Some((Token::Operator(operator), at)) = self.tokens.get(self.at) {
            let (operator, at) = (*operator, *at);
            self.at += 1;
            let right = self.value()?;
            let is_match = matches!(operator, Operator::Match | Operator::NoMatch);
            if is_match && matches!(right, Term::Null) {
                return Err(ExpressionError { message: "the right side of `=~` is a pattern".to_owned(), at });
            }
            left = Term::Compare(Box::new(left), operator, Box::new(right));
        }
        Ok(left)
    }

    fn value(&mut self) -> Result<Term, ExpressionError> {
        let Some((token, at)) = self.tokens.get(self.at).cloned() else {
            return Err(ExpressionError { message: "the expression ends too early".to_owned(), at: self.end });
        };
        self.at += 1;
        match token {
            Token::Term(term) => Ok(term),
            Token::Open if self.depth == MAX_DEPTH => {
                Err(ExpressionError { message: format!("brackets lie more than {MAX_DEPTH} deep in each other"), at })
            }
            Token::Open => {
                self.depth += 1;
                let inner = self.or()?;
                self.depth -= 1;
                if let Some((Token::Close, _)) = self.tokens.get(self.at) {
                    self.at += 1;
                    return Ok(inner);
                }
                Err(ExpressionError { message: "this `(` has no `)`".to_owned(), at })
            }
            token @ (Token::Operator(_) | Token::And | Token::Or | Token::Close) => Err(unexpected(&token, at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let value = |name: &str| match name {
            "A" | "ALSO" => Some("x"),
            "EMPTY" => Some(""),
            "REF" => Some("feature/x"),
            "PATTERN" => Some("/^feature/"),
            "SPACES" => Some("two words"),
            "CODE" => Some("\" || true || \""),
            _ => None,
        };
        Expression::parse(text).expect(text).evaluate(&value).holds
    }

    #[test]
    fn it_is_as_gitlabs_own_table_says() {
        for (text, wanted) in [
            (r#"$A == "x""#, true),
            ("$A == 'x'", true),
            (r#"$A != "x""#, false),
            (r#""x" == $A"#, true),
            ("$A == $ALSO", true),
            ("$NOPE == null", true),
            ("$EMPTY == null", false),
            ("$EMPTY != null", true),
            ("$NOPE == $ALSO_NOPE", true),
            (r#"$EMPTY == """#, true),
            ("$A", true),
            ("$EMPTY", false),
            ("$NOPE", false),
            ("null", false),
            (r#""text""#, true),
            (r#""""#, false),
            ("$REF =~ /^feat/", true),
            ("$REF =~ /ure/", true),
            ("$REF =~ /^FEAT/", false),
            ("$REF =~ /^FEAT/i", true),
            (r"$REF =~ /^feature\/x$/", true),
            ("$NOPE =~ /xy/", false),
            ("$NOPE =~ /^$/", false),
            ("$NOPE !~ /xy/", true),
            ("$EMPTY =~ /^$/", true),
            ("$REF =~ $PATTERN", true),
            ("$REF !~ $PATTERN", false),
            ("$A =~ $NOPE", false),
            ("$A =~ $ALSO", true),
            (r#""wor" =~ $SPACES"#, true),
            (r#"$A == "x" || $NOPE && $NOPE"#, true),
            (r#"($A == "x" || $NOPE) && $NOPE"#, false),
            (r#"(($A == "x") && ($EMPTY == "" || $NOPE))"#, true),
            ("$EMPTY && $A", true),
            ("$EMPTY || $A", false),
            ("$NOPE || $A", true),
            ("$A && $EMPTY", false),
            ("$A == \"x\" &&\n  $REF =~ /x$/", true),
            (r#"$CODE == "x""#, false),
            ("$A==\"x\"&&$REF=~/x$/", true),
            (r#"$A == "x" == "y""#, false),
        ] {
            assert_eq!(holds(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        for (text, at, words) in [
            ("", 1, "ends too early"),
            ("$A ==", 6, "ends too early"),
            ("${A}", 1, "without braces"),
            ("!$A", 1, "not known"),
            ("$A == 1", 7, "not known"),
            ("$A == x", 7, "not known"),
            ("$A $ALSO", 4, "not expected"),
            ("($A", 1, "no `)`"),
            ("$A)", 3, "not expected"),
            ("$A == \"x", 7, "no end"),
            ("$A =~ /x", 7, "closing slash"),
            ("$A =~ /x/", 7, "two characters"),
            ("$A =~ /x(/", 7, "unclosed"),
            ("$A =~ /(?=x)y/", 7, "look-around"),
            ("$A =~ null", 4, "pattern"),
            ("== $A", 1, "not expected"),
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
        assert!(Expression::parse(&"(".repeat(100)).unwrap_err().message.contains("deep"));
    }

    #[test]
    fn what_is_odd_is_said() {
        let x = |_: &str| Some("x");
        assert!(Expression::parse("$A =~ \"xyz\"").unwrap().evaluate(&x).warnings[0].contains("part of it"));
        assert!(Expression::parse("$A =~ /xyz/").unwrap().evaluate(&x).warnings.is_empty());
    }
}
