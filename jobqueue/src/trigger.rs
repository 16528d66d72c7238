//! Triggers: which events start which pipelines. Pure matching: the host delivers the events, and starts the pipelines.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// The host's number for an orchestration, which a rule starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct TemplateId(pub u64);

/// Why a pattern is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The pattern is longer than [`Glob::MAX_BYTES`].
    #[error("the pattern has {0} bytes, more than the maximum")]
    TooLong(usize),
    /// The cron line does not have five fields.
    #[error("a schedule has five fields: minute hour day month weekday; this one has {0}")]
    Fields(usize),
    /// A field of the cron line is not `*`, `a`, `a-b`, `*/n`, `a-b/n`, or a list of these, within its bounds.
    #[error("field {field}: {text:?} is none of *, a, a-b, */n, a-b/n within {least} to {most}")]
    Field {
        /// The number of the field, from 1.
        field: usize,
        /// The text of the field.
        text: String,
        /// The smallest number allowed.
        least: u32,
        /// The largest number allowed.
        most: u32,
    },
}

/// A pattern for branches, tags and paths.
///
/// `?` is one character but `/`, `*` any number of them, `**` any with `/`. `**/` also stands for nothing, so that
/// `**/x` finds `x` itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Token {
    Char(char),
    One,
    Some,
    Any,
    AnyDirs,
}

impl Glob {
    /// The maximum length of a pattern in bytes.
    pub const MAX_BYTES: usize = 1_024;

    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError::TooLong`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > Self::MAX_BYTES {
            return Err(PatternError::TooLong(text.len()));
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (token, bytes) = match first {
                '*' if rest.starts_with("**/") => (Token::AnyDirs, 3),
                '*' if rest.starts_with("**") => (Token::Any, 2),
                '*' => (Token::Some, 1),
                '?' => (Token::One, 1),
                other => (Token::Char(other), other.len_utf8()),
            };
            tokens.push(token);
            rest = &rest[bytes..];
        }
        Ok(Self(tokens))
    }

    /// Whether the whole of `text` matches. Takes time in proportion to the two lengths multiplied, and no more.
    ///
    /// ```
    /// use tenon_jobqueue::trigger::Glob;
    ///
    /// let glob = Glob::new("**/*.rs")?;
    /// assert!(glob.matches("src/engine/mod.rs") && glob.matches("lib.rs"));
    /// assert!(!glob.matches("README.md"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // fits[i]: the tokens so far fit the first i characters.
        let chars: Vec<char> = text.chars().collect();
        let mut fits = vec![false; chars.len() + 1];
        fits[0] = true;
        for token in &self.0 {
            let mut next = vec![false; chars.len() + 1];
            for at in 0..=chars.len() {
                let before = at.checked_sub(1).map(|before| (fits[before], next[before], chars[before]));
                next[at] = match token {
                    Token::Char(char) => before.is_some_and(|(fit, _, found)| fit && found == *char),
                    Token::One => before.is_some_and(|(fit, _, found)| fit && found != '/'),
                    Token::Some => fits[at] || before.is_some_and(|(_, next, found)| next && found != '/'),
                    Token::Any => fits[at] || before.is_some_and(|(_, next, _)| next),
                    Token::AnyDirs => {
                        fits[at] || before.is_some_and(|(_, _, found)| found == '/') && fits[..at].contains(&true)
                    }
                };
            }
            fits = next;
        }
        fits.last().copied().unwrap_or(false)
    }
}

/// A minute as a wall clock in some zone shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Civil {
    /// The minute, 0 to 59.
    pub minute: u8,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the week, 0 to 6, from Sunday.
    pub weekday: u8,
}

/// A schedule as `cron` has it: minute, hour, day, month, weekday.
///
/// If both day and weekday are given, either suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cron {
    fields: [u64; 5],
    /// Whether day and weekday are both given.
    either_day: bool,
}

impl Cron {
    /// Parses a schedule. Weekday 7 is Sunday too.
    ///
    /// # Errors
    ///
    /// [`PatternError`] names the field.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
        if parts.len() != bounds.len() {
            return Err(PatternError::Fields(parts.len()));
        }
        let mut fields = [0; 5];
        for (at, (part, (least, most))) in parts.iter().zip(bounds).enumerate() {
            let wrong = || PatternError::Field { field: at + 1, text: String::from(*part), least, most };
            for item in part.split(',') {
                fields[at] |= cron_item(item, least, most).ok_or_else(wrong)?;
            }
        }
        if fields[4] & (1 << 7) != 0 {
            fields[4] |= 1;
        }
        Ok(Self { fields, either_day: !parts[2].starts_with('*') && !parts[4].starts_with('*') })
    }

    /// Whether the schedule names this minute.
    ///
    /// ```
    /// use tenon_jobqueue::trigger::{Civil, Cron};
    ///
    /// let weekdays_at_nine = Cron::new("0 9 * * 1-5")?;
    /// let monday = Civil { minute: 0, hour: 9, day: 30, month: 11, weekday: 1 };
    /// assert!(weekdays_at_nine.matches(&monday));
    /// assert!(!weekdays_at_nine.matches(&Civil { weekday: 0, ..monday }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn matches(&self, at: &Civil) -> bool {
        let [minutes, hours, ..] = self.fields;
        self.names_day(*at) && named(minutes, at.minute) && named(hours, at.hour)
    }

    /// Whether the schedule names this day.
    pub(crate) fn names_day(&self, at: Civil) -> bool {
        let [_, _, days, months, weekdays] = self.fields;
        let (day, weekday) = (named(days, at.day), named(weekdays, at.weekday));
        let on_day = if self.either_day { day || weekday } else { day && weekday };
        on_day && named(months, at.month)
    }

    /// Whether the schedule names every hour, so that it goes by the time that passes and not by the time of the day.
    pub(crate) fn is_every_hour(&self) -> bool {
        (0..24).all(|hour| named(self.fields[1], hour))
    }
}

const fn named(field: u64, number: u8) -> bool {
    number < 64 && field & (1 << number) != 0
}

fn cron_item(item: &str, least: u32, most: u32) -> Option<u64> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, step.parse().ok().filter(|step: &usize| *step > 0)?),
        None => (item, 1),
    };
    let (from, to) = match range.split_once('-') {
        _ if range == "*" => (least, most),
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => {
            let one = range.parse().ok()?;
            // `a/n` begins at a and goes on to the end.
            (one, if step > 1 { most } else { one })
        }
    };
    let good = least <= from && from <= to && to <= most;
    good.then(|| (from..=to).step_by(step).fold(0, |field, number| field | 1 << number))
}

/// An event that may start pipelines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening<'a> {
    /// A branch was pushed.
    Push {
        /// The name of the branch.
        branch: &'a str,
        /// The paths that changed.
        paths: &'a [&'a str],
    },
    /// A merge request was opened or updated.
    MergeRequest {
        /// The target branch.
        target: &'a str,
        /// The paths that it changes.
        paths: &'a [&'a str],
    },
    /// A tag was pushed.
    Tag {
        /// The name of the tag.
        name: &'a str,
    },
    /// A start was requested by the API.
    Api,
    /// A minute has begun.
    ///
    /// Told once a minute for each zone that a rule names, with that zone's time: a host's zone data knows what its
    /// clocks skip and repeat.
    Minute {
        /// The name of the zone.
        zone: &'a str,
        /// The time in that zone.
        at: Civil,
    },
}

/// The event that a rule waits for. An empty list matches anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum On {
    /// A push to one of these branches that changes one of these paths.
    Push {
        /// The patterns of the branches.
        branches: Vec<Glob>,
        /// The patterns of the paths.
        paths: Vec<Glob>,
    },
    /// A merge request to one of these branches that changes one of these paths.
    MergeRequest {
        /// The patterns of the target branches.
        targets: Vec<Glob>,
        /// The patterns of the paths.
        paths: Vec<Glob>,
    },
    /// A push of one of these tags.
    Tag {
        /// The patterns of the tags.
        names: Vec<Glob>,
    },
    /// A call of the API.
    Api,
    /// A minute of this schedule, by this zone's clocks.
    Schedule {
        /// The schedule.
        cron: Cron,
        /// The name of the zone.
        zone: String,
    },
}

/// A rule: the event that it waits for, and the orchestration that it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The event that the rule waits for.
    pub on: On,
    /// The orchestration that the rule starts.
    pub template: TemplateId,
}

impl Rule {
    /// Whether the event matches the rule.
    #[must_use]
    pub fn matches(&self, happening: &Happening<'_>) -> bool {
        match (&self.on, happening) {
            (On::Push { branches, paths: wanted }, Happening::Push { branch: name, paths })
            | (
                On::MergeRequest { targets: branches, paths: wanted },
                Happening::MergeRequest { target: name, paths },
            ) => fits(branches, &[name]) && fits(wanted, paths),
            (On::Tag { names }, Happening::Tag { name }) => fits(names, &[name]),
            (On::Api, Happening::Api) => true,
            (On::Schedule { cron, zone: of }, Happening::Minute { zone, at }) => of == zone && cron.matches(at),
            _ => false,
        }
    }
}

/// Lists the orchestrations that an event starts, in the order of the rules, each once.
///
/// ```
/// use tenon_jobqueue::trigger::{Glob, Happening, On, Rule, TemplateId, triggered};
///
/// let on = On::Push { branches: vec![Glob::new("main")?], paths: vec![Glob::new("src/**")?] };
/// let rules = [Rule { on, template: TemplateId(7) }];
/// let push = Happening::Push { branch: "main", paths: &["src/lib.rs"] };
/// assert_eq!(triggered(&rules, &push), [TemplateId(7)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn triggered(rules: &[Rule], happening: &Happening<'_>) -> Vec<TemplateId> {
    let mut started = Vec::new();
    for rule in rules.iter().filter(|rule| rule.matches(happening)) {
        if !started.contains(&rule.template) {
            started.push(rule.template);
        }
    }
    started
}

fn fits(globs: &[Glob], texts: &[&str]) -> bool {
    globs.is_empty() || texts.iter().any(|text| globs.iter().any(|glob| glob.matches(text)))
}
