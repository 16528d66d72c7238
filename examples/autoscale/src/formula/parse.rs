//! Reading a formula: operators by how tightly they bind, names, functions, predicates.

use super::{Expr, Function, Operator, Value};

/// How deep expressions may lie in each other.
const MAX_DEPTH: usize = 64;

const FUNCTIONS: [(&str, Function); 13] = [
    ("min", Function::Min),
    ("max", Function::Max),
    ("abs", Function::Abs),
    ("ceil", Function::Ceil),
    ("floor", Function::Floor),
    ("round", Function::Round),
    ("sum", Function::Sum),
    ("count", Function::Count),
    ("any", Function::Any),
    ("all", Function::All),
    ("none", Function::None),
    ("float", Function::Float),
    ("int", Function::Int),
];

/// Operators by their signs, the longer ones first, and how tightly they bind.
const OPERATORS: [(&str, Operator, u8); 19] = [
    ("??", Operator::Coalesce, 9),
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::Unequal, 3),
    ("<=", Operator::LessOrEqual, 3),
    (">=", Operator::GreaterOrEqual, 3),
    ("**", Operator::Power, 8),
    ("<", Operator::Less, 3),
    (">", Operator::Greater, 3),
    ("+", Operator::Add, 5),
    ("-", Operator::Subtract, 5),
    ("*", Operator::Multiply, 6),
    ("/", Operator::Divide, 6),
    ("^", Operator::Power, 8),
    ("or ", Operator::Or, 1),
    ("and ", Operator::And, 2),
    ("or(", Operator::Or, 1),
    ("and(", Operator::And, 2),
];

/// Reads a formula from left to right.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: &'a [String],
    /// Whether a predicate is being read, in which `#` stands for the item.
    inside: bool,
}

impl<'a> Parser<'a> {
    pub(super) const fn new(text: &'a str, names: &'a [String]) -> Self {
        Self { text, at: 0, names, inside: false }
    }

    /// The formula as a whole.
    pub(super) fn whole(mut self) -> Result<Expr, String> {
        let root = self.expression(0)?;
        self.skip();
        if self.at < self.text.len() {
            return Err(self.wrong("something that this program does not know stands"));
        }
        Ok(root)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong(&self, what: &str) -> String {
        format!("{what} at character {} of the formula", self.text[..self.at].chars().count() + 1)
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) { Ok(()) } else { Err(self.wrong(&format!("`{sign}` is missing"))) }
    }

    fn expression(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("expressions lie too deep in each other"));
        }
        let condition = self.binary(0, depth + 1)?;
        self.skip();
        if self.rest().starts_with('?') && !self.rest().starts_with("??") {
            self.at += 1;
            let yes = self.expression(depth + 1)?;
            self.expect(":")?;
            let no = self.expression(depth + 1)?;
            return Ok(Expr::Choose(Box::new(condition), Box::new(yes), Box::new(no)));
        }
        Ok(condition)
    }

    fn binary(&mut self, least: u8, depth: usize) -> Result<Expr, String> {
        let mut left = self.unary(depth + 1)?;
        loop {
            self.skip();
            let Some((sign, operator, binds)) =
                OPERATORS.iter().find(|(sign, ..)| self.rest().starts_with(sign)).copied()
            else {
                return Ok(left);
            };
            if binds < least {
                return Ok(left);
            }
            self.at += sign.trim_end_matches(['(', ' ']).len();
            // A power binds to the right.
            let next = if operator == Operator::Power { binds } else { binds + 1 };
            let right = self.binary(next, depth + 1)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("expressions lie too deep in each other"));
        }
        if self.take("-") {
            return Ok(Expr::Negative(Box::new(self.binary(7, depth + 1)?)));
        }
        if self.take("+") {
            return self.binary(7, depth + 1);
        }
        self.skip();
        if self.rest().starts_with("not ") || (self.rest().starts_with('!') && !self.rest().starts_with("!=")) {
            self.at += if self.rest().starts_with('!') { 1 } else { 4 };
            return Ok(Expr::Not(Box::new(self.binary(4, depth + 1)?)));
        }
        self.primary(depth)
    }

    fn primary(&mut self, depth: usize) -> Result<Expr, String> {
        if self.take("(") {
            let inner = self.expression(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("[") {
            return Ok(Expr::List(self.arguments("]", depth)?));
        }
        if self.take("#") {
            return if self.inside { Ok(Expr::Item) } else { Err(self.wrong("`#` stands outside of a predicate")) };
        }
        self.skip();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = self.rest().find(|c: char| !is_name(c) && c != '.').unwrap_or(self.rest().len());
        let word = self.rest()[..length].to_owned();
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.number();
        }
        let word = word.split('.').next().unwrap_or_default().to_owned();
        if word.is_empty() {
            return Err(self.wrong("a number, a trigger's name or a function is missing"));
        }
        let before = self.at;
        self.at += word.len();
        if let Some(place) = self.names.iter().position(|name| *name == word) {
            return Ok(Expr::Name(place));
        }
        match word.as_str() {
            "nil" => return Ok(Expr::Literal(Value::Nil)),
            "true" => return Ok(Expr::Literal(Value::Bool(true))),
            "false" => return Ok(Expr::Literal(Value::Bool(false))),
            _ => {}
        }
        if self.take("(") {
            let Some((_, function)) = FUNCTIONS.iter().find(|(name, _)| *name == word) else {
                self.at = before;
                let known = FUNCTIONS.map(|(name, _)| name).join(", ");
                return Err(self.wrong(&format!("the function `{word}` is not one that is rehearsed ({known})")));
            };
            let inside = self.inside;
            self.inside |= function.takes_predicate();
            let arguments = self.arguments(")", depth);
            self.inside = inside;
            let arguments = arguments?;
            function.check(&arguments).map_err(|what| self.wrong(&what))?;
            return Ok(Expr::Call(*function, arguments));
        }
        self.at = before;
        let known = self.names.join(", ");
        Err(self.wrong(&format!("`{word}` is not the name of a trigger (named are: {known})")))
    }

    fn number(&mut self) -> Result<Expr, String> {
        let mut length = 0;
        let bytes = self.rest().as_bytes();
        while let Some(byte) = bytes.get(length) {
            let exponent = length > 0 && matches!(bytes[length - 1], b'e' | b'E');
            let belongs = byte.is_ascii_digit()
                || matches!(byte, b'.' | b'_' | b'e' | b'E')
                || (exponent && matches!(byte, b'+' | b'-'));
            if !belongs {
                break;
            }
            length += 1;
        }
        let digits = self.rest()[..length].replace('_', "");
        let number: f64 = digits.parse().map_err(|_| self.wrong(&format!("`{digits}` is no number, and stands")))?;
        self.at += length;
        Ok(Expr::Literal(Value::Number(number)))
    }

    /// Expressions and predicates in braces, up to a closing sign.
    fn arguments(&mut self, closing: &str, depth: usize) -> Result<Vec<Expr>, String> {
        let mut arguments = Vec::new();
        loop {
            if self.take(closing) {
                return Ok(arguments);
            }
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            if self.take("{") {
                arguments.push(self.expression(depth + 1)?);
                self.expect("}")?;
            } else {
                arguments.push(self.expression(depth + 1)?);
            }
        }
    }
}
