//! Rules, patterns and schedules.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tenon_jobqueue::trigger::{Civil, Cron, Glob, Happening, On, PatternError, Rule, TemplateId, triggered};

#[test]
fn globs() {
    let cases = [
        ("main", "main", true),
        ("main", "maine", false),
        ("release/*", "release/1.2", true),
        ("release/*", "release/1.2/hot", false),
        ("release/**", "release/1.2/hot", true),
        ("**/Cargo.toml", "Cargo.toml", true),
        ("**/Cargo.toml", "a/b/Cargo.toml", true),
        ("**/Cargo.toml", "a/bCargo.toml", false),
        ("src/**/test_*.rs", "src/test_a.rs", true),
        ("src/**/test_*.rs", "src/a/b/test_c.rs", true),
        ("v?.?", "v1.2", true),
        ("v?.?", "v1/2", false),
        ("**", "anything/at/all", true),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("ä*", "äöü", true),
    ];
    for (glob, text, fits) in cases {
        assert_eq!(Glob::new(glob).unwrap().matches(text), fits, "{glob} {text}");
    }
    let hostile = "*a".repeat(500);
    assert!(!Glob::new(&hostile).unwrap().matches(&"a".repeat(400)), "no explosion");
    assert_eq!(Glob::new(&"a".repeat(1_025)), Err(PatternError::TooLong(1_025)));
}

const fn civil(month: u8, day: u8, weekday: u8, hour: u8, minute: u8) -> Civil {
    Civil { minute, hour, day, month, weekday }
}

#[test]
fn schedules() {
    let monday = civil(11, 23, 1, 9, 30);
    let cases = [
        ("* * * * *", true),
        ("30 9 * * 1-5", true),
        ("30 9 * * 6,0", false),
        ("*/15 9 * * *", true),
        ("*/20 9 * * *", false),
        ("0/10 9 * * *", true),
        ("30 9 1 * *", false),
        ("30 9 1 * 1", true),
        ("30 9 23 * 3", true),
        ("30 9 * 1-10 *", false),
        ("5-50/25 * * * *", true),
    ];
    for (text, now) in cases {
        assert_eq!(Cron::new(text).unwrap().matches(&monday), now, "{text}");
    }
    assert!(Cron::new("0 0 * * 7").unwrap().matches(&civil(1, 4, 0, 0, 0)), "7 is Sunday too");
    for (text, field) in [("60 * * * *", 1), ("* 24 * * *", 2), ("* * 0 * *", 3), ("* * * x *", 4), ("* * * * 1-", 5)] {
        assert!(matches!(Cron::new(text), Err(PatternError::Field { field: found, .. }) if found == field), "{text}");
    }
    for text in ["*/0 * * * *", "9-3 * * * *", ", * * * *"] {
        assert!(Cron::new(text).is_err(), "{text}");
    }
    assert_eq!(Cron::new("* * * *"), Err(PatternError::Fields(4)));
}

#[test]
fn what_an_event_starts() {
    let globs = |texts: &[&str]| texts.iter().map(|text| Glob::new(text).unwrap()).collect::<Vec<_>>();
    let rule = |on, template| Rule { on, template: TemplateId(template) };
    let nightly = On::Schedule { cron: Cron::new("0 2 * * *").unwrap(), zone: "Europe/Berlin".into() };
    let rules = [
        rule(On::Push { branches: globs(&["main", "release/*"]), paths: globs(&[]) }, 1),
        rule(On::Push { branches: globs(&[]), paths: globs(&["docs/**"]) }, 2),
        rule(On::MergeRequest { targets: globs(&["main"]), paths: globs(&[]) }, 3),
        rule(On::Tag { names: globs(&["v*"]) }, 4),
        rule(On::Api, 5),
        rule(nightly, 6),
        rule(On::Push { branches: globs(&["main"]), paths: globs(&["**"]) }, 1),
    ];
    let (src, docs): (&[&str], &[&str]) = (&["src/lib.rs"], &["docs/a/b.md"]);
    let two = civil(6, 1, 1, 2, 0);
    let cases = [
        (Happening::Push { branch: "main", paths: src }, vec![1]),
        (Happening::Push { branch: "main", paths: docs }, vec![1, 2]),
        (Happening::Push { branch: "feature", paths: docs }, vec![2]),
        (Happening::Push { branch: "feature", paths: src }, vec![]),
        (Happening::MergeRequest { target: "main", paths: src }, vec![3]),
        (Happening::Tag { name: "v1.0" }, vec![4]),
        (Happening::Tag { name: "w1.0" }, vec![]),
        (Happening::Api, vec![5]),
        (Happening::Minute { zone: "Europe/Berlin", at: two }, vec![6]),
        (Happening::Minute { zone: "UTC", at: two }, vec![]),
    ];
    for (happening, templates) in cases {
        let started: Vec<u64> = triggered(&rules, &happening).into_iter().map(|template| template.0).collect();
        assert_eq!(started, templates, "{happening:?}");
    }
}
