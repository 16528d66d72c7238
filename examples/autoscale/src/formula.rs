//! The formula of KEDA's `scalingModifiers`: the arithmetic core of the `expr` language.
//!
//! Numbers, the names of triggers, `+ - * / **`, comparison, `and or not`, `? :`, `??`, `nil`, lists, and the functions
//! `min max abs ceil floor round sum count any all none float int`. What else the language has is refused by name.

/// How deep expressions may lie in each other.
const MAX_DEPTH: usize = 64;
/// The longest formula, in bytes.
const MAX_BYTES: usize = 10_000;

/// A formula that has been read.
#[derive(Clone, Debug)]
pub(crate) struct Formula {
    root: Expr,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
enum Expr {
    Literal(Value),
    /// The value of a trigger, by its place in the names.
    Name(usize),
    /// The item that a predicate looks at.
    Item,
    List(Vec<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Choose(Box<Expr>, Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
}

/// A value while a formula is worked out.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    List(Vec<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Coalesce,
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Abs,
    Ceil,
    Floor,
    Round,
    Sum,
    Count,
    Any,
    All,
    None,
    Float,
    Int,
}

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

impl Formula {
    /// Reads a formula over triggers of these names.
    ///
    /// # Errors
    /// A sentence: what is wrong, and at which character.
    pub(crate) fn parse(text: &str, names: &[String]) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the formula has {} bytes, and {MAX_BYTES} are read", text.len()));
        }
        let mut parser = Parser { text, at: 0, names, inside: false };
        let root = parser.expression(0)?;
        parser.skip();
        if parser.at < text.len() {
            return Err(parser.wrong("something that this program does not know stands"));
        }
        Ok(Self { root, names: names.to_vec() })
    }

    /// The names of the triggers that it may speak of.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Works it out; a trigger's value is `None` where it has failed for good. `Ok(None)` where the outcome is nil.
    ///
    /// # Errors
    /// A sentence where the outcome is no number.
    pub(crate) fn value(&self, triggers: &[Option<f64>]) -> Result<Option<f64>, String> {
        match self.root.value(triggers, None)? {
            Value::Nil => Ok(None),
            Value::Number(number) => Ok(Some(number)),
            Value::Bool(_) => Err("the formula gives a truth value where a number is needed".into()),
            Value::List(_) => Err("the formula gives a list where a number is needed".into()),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: &'a [String],
    /// Whether a predicate is being read, in which `#` stands for the item.
    inside: bool,
}

impl Parser<'_> {
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

impl Function {
    const fn takes_predicate(self) -> bool {
        matches!(self, Self::Count | Self::Sum | Self::Any | Self::All | Self::None)
    }

    fn check(self, arguments: &[Expr]) -> Result<(), String> {
        let fits = match self {
            Self::Min | Self::Max => !arguments.is_empty(),
            Self::Abs | Self::Ceil | Self::Floor | Self::Round | Self::Float | Self::Int => arguments.len() == 1,
            Self::Sum | Self::Count => matches!(arguments.len(), 1 | 2),
            Self::Any | Self::All | Self::None => arguments.len() == 2,
        };
        if fits { Ok(()) } else { Err("a function has too few or too many arguments".into()) }
    }
}

impl Value {
    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Nil => Err("the formula calculates with nil".into()),
            Self::Bool(_) | Self::List(_) => Err("the formula calculates with what is no number".into()),
        }
    }

    fn truth(&self) -> Result<bool, String> {
        match self {
            Self::Bool(truth) => Ok(*truth),
            Self::Nil | Self::Number(_) | Self::List(_) => Err("the formula uses what is no truth value as one".into()),
        }
    }
}

impl Expr {
    fn value(&self, triggers: &[Option<f64>], item: Option<&Value>) -> Result<Value, String> {
        let of = |expr: &Self| expr.value(triggers, item);
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Name(place) => triggers.get(*place).copied().flatten().map_or(Value::Nil, Value::Number),
            Self::Item => item.cloned().unwrap_or(Value::Nil),
            Self::List(items) => Value::List(items.iter().map(of).collect::<Result<_, _>>()?),
            Self::Not(inner) => Value::Bool(!of(inner)?.truth()?),
            Self::Negative(inner) => Value::Number(-of(inner)?.number()?),
            Self::Choose(condition, yes, no) => of(if of(condition)?.truth()? { yes } else { no })?,
            Self::Binary(operator, left, right) => operator.value(&of(left)?, || of(right))?,
            Self::Call(function, arguments) => function.value(arguments, triggers, item)?,
        })
    }
}

impl Operator {
    fn value(self, left: &Value, right: impl FnOnce() -> Result<Value, String>) -> Result<Value, String> {
        Ok(match self {
            Self::Coalesce => {
                if *left == Value::Nil {
                    right()?
                } else {
                    left.clone()
                }
            }
            Self::Or => Value::Bool(left.truth()? || right()?.truth()?),
            Self::And => Value::Bool(left.truth()? && right()?.truth()?),
            Self::Equal => Value::Bool(*left == right()?),
            Self::Unequal => Value::Bool(*left != right()?),
            Self::Less => Value::Bool(left.number()? < right()?.number()?),
            Self::LessOrEqual => Value::Bool(left.number()? <= right()?.number()?),
            Self::Greater => Value::Bool(left.number()? > right()?.number()?),
            Self::GreaterOrEqual => Value::Bool(left.number()? >= right()?.number()?),
            Self::Add => Value::Number(left.number()? + right()?.number()?),
            Self::Subtract => Value::Number(left.number()? - right()?.number()?),
            Self::Multiply => Value::Number(left.number()? * right()?.number()?),
            Self::Divide => Value::Number(left.number()? / right()?.number()?),
            Self::Power => Value::Number(left.number()?.powf(right()?.number()?)),
        })
    }
}

impl Function {
    fn value(self, arguments: &[Expr], triggers: &[Option<f64>], item: Option<&Value>) -> Result<Value, String> {
        if self.takes_predicate() {
            return self.over_list(arguments, triggers, item);
        }
        let mut numbers = Vec::new();
        for argument in arguments {
            match argument.value(triggers, item)? {
                Value::List(items) => numbers.extend(items.iter().map(Value::number).collect::<Result<Vec<_>, _>>()?),
                value @ (Value::Nil | Value::Bool(_) | Value::Number(_)) => numbers.push(value.number()?),
            }
        }
        let first = numbers.first().copied().ok_or("the formula asks for the extreme of nothing")?;
        Ok(Value::Number(match self {
            Self::Min => numbers.into_iter().fold(first, f64::min),
            Self::Max => numbers.into_iter().fold(first, f64::max),
            Self::Abs => first.abs(),
            Self::Ceil => first.ceil(),
            Self::Floor => first.floor(),
            Self::Round => first.round(),
            Self::Int => first.trunc(),
            Self::Float | Self::Sum | Self::Count | Self::Any | Self::All | Self::None => first,
        }))
    }

    fn over_list(self, arguments: &[Expr], triggers: &[Option<f64>], item: Option<&Value>) -> Result<Value, String> {
        let Value::List(items) = arguments[0].value(triggers, item)? else {
            return Err("the formula goes through what is no list".into());
        };
        let of = |held: &Value| arguments.get(1).map_or_else(|| Ok(held.clone()), |by| by.value(triggers, Some(held)));
        let values: Vec<Value> = items.iter().map(of).collect::<Result<_, _>>()?;
        if self == Self::Sum {
            let numbers: Vec<f64> = values.iter().map(Value::number).collect::<Result<_, _>>()?;
            return Ok(Value::Number(numbers.iter().sum()));
        }
        let truths: Vec<bool> = values.iter().map(Value::truth).collect::<Result<_, _>>()?;
        let count = truths.iter().filter(|truth| **truth).count();
        Ok(match self {
            Self::Any => Value::Bool(count > 0),
            Self::All => Value::Bool(count == truths.len()),
            Self::None => Value::Bool(count == 0),
            Self::Count
            | Self::Sum
            | Self::Min
            | Self::Max
            | Self::Abs
            | Self::Ceil
            | Self::Floor
            | Self::Round
            | Self::Float
            | Self::Int => Value::Number(f64::from(u32::try_from(count).unwrap_or(u32::MAX))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, triggers: &[(&str, Option<f64>)]) -> Result<Option<f64>, String> {
        let names: Vec<String> = triggers.iter().map(|(name, _)| (*name).to_owned()).collect();
        Formula::parse(text, &names)?.value(&triggers.iter().map(|(_, value)| *value).collect::<Vec<_>>())
    }

    #[test]
    fn the_arithmetic_core_is_worked_out() {
        let triggers = [("queue", Some(30.0)), ("rate", Some(4.5)), ("dead", None)];
        for (text, expected) in [
            ("queue + rate * 2", Some(39.0)),
            ("(queue + rate) / 2", Some(17.25)),
            ("-queue + 40", Some(10.0)),
            ("2 ** 3 ** 2", Some(512.0)),
            ("queue > 20 and rate < 5 ? queue : rate", Some(30.0)),
            ("queue < 20 || !(rate < 5) ? queue : rate", Some(4.5)),
            ("not (queue < 20) ? 1 : 2", Some(1.0)),
            ("dead ?? queue", Some(30.0)),
            ("dead", None),
            ("dead ?? nil", None),
            ("max(queue, rate, 7) - min([queue, rate])", Some(25.5)),
            ("ceil(rate) + floor(rate) + round(rate) + abs(-1)", Some(15.0)),
            ("count([queue, rate], {# > 5}) + count([queue, rate], # > 1)", Some(3.0)),
            ("sum([queue, rate]) + sum([1, 2], {# * 10})", Some(64.5)),
            ("any([queue], {# > 5}) ? 1.5e1 : 0", Some(15.0)),
            ("float(int(rate))", Some(4.0)),
            ("queue == 30 ? 1 : 2", Some(1.0)),
        ] {
            assert_eq!(value(text, &triggers), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("queue + depth", "`depth` is not the name of a trigger (named are: queue)"),
            ("trimPrefix(queue)", "the function `trimPrefix` is not one that is rehearsed"),
            ("queue +", "a number, a trigger's name or a function is missing at character 8"),
            ("queue % 2", "something that this program does not know stands at character 7"),
            ("(queue", "`)` is missing"),
            ("# + 1", "`#` stands outside of a predicate"),
            ("queue > 1", "gives a truth value where a number is needed"),
            ("abs(1, 2)", "too few or too many arguments"),
            ("1.2.3", "`1.2.3` is no number"),
        ] {
            let error = value(text, &[("queue", Some(1.0))]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let deep = "(".repeat(500);
        assert!(value(&deep, &[]).unwrap_err().contains("too deep"));
    }
}
