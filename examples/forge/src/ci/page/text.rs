//! Times, ids and counts as people read them.

/// A span of time: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d`.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..10 => format!("{}.{} s", s, ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d", s / 86_400),
    }
}

/// How long ago: `now`, `12 s ago`, `3 min ago` …
pub(super) fn ago(now: u64, then: u64) -> String {
    let s = now.saturating_sub(then) / 1000;
    match s {
        0..2 => "now".into(),
        2..60 => format!("{s} s ago"),
        60..3600 => format!("{} min ago", s / 60),
        3600..86_400 => format!("{} h ago", s / 3600),
        _ => format!("{} d ago", s / 86_400),
    }
}

pub(super) fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// `1 job`, `2 jobs`.
pub(super) fn count(n: u64, what: &str) -> String {
    match what.strip_suffix('y') {
        _ if n == 1 => format!("1 {what}"),
        Some(stem) => format!("{n} {stem}ies"),
        None if what.ends_with("ch") => format!("{n} {what}es"),
        None => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_it() {
        assert_eq!(
            [450, 12_300, 185_000, 7_860_000, 400_000_000].map(span),
            ["0.4 s", "12 s", "3 min 5 s", "2 h 11 min", "4 d"]
        );
        assert_eq!(ago(5_000, 4_000), "now");
        assert_eq!(ago(500_000, 0), "8 min ago");
        assert_eq!(ago(0, 5), "now");
        assert_eq!((count(1, "job"), count(0, "job")), ("1 job".into(), "0 jobs".into()));
        assert_eq!((count(3, "repository"), count(2, "branch")), ("3 repositories".into(), "2 branches".into()));
    }
}
