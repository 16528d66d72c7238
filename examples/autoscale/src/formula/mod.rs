//! The formula of KEDA's `scalingModifiers`: the arithmetic core of the `expr` language.
//!
//! Numbers, the names of triggers, `+ - * / **`, comparison, `and or not`, `? :`, `??`, `nil`, lists, and the functions
//! `min max abs ceil floor round sum count any all none float int`. What else the language has is refused by name.

mod parse;

use parse::Parser;

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

impl Formula {
    /// Reads a formula over triggers of these names.
    ///
    /// # Errors
    /// A sentence: what is wrong, and at which character.
    pub(crate) fn parse(text: &str, names: &[String]) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the formula has {} bytes, and {MAX_BYTES} are read", text.len()));
        }
        Ok(Self { root: Parser::new(text, names).whole()?, names: names.to_vec() })
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
