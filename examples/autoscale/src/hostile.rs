//! Bytes of anybody's are read or refused, and never end the program: cases and forms with parts cut, doubled and changed.

use std::path::Path;

use crate::condition::Condition;
use crate::cron::Schedule;
use crate::finding::Finding;
use crate::formula::Formula;
use crate::manifest::{Edit, Stream, read};
use crate::quantity::{duration_ms, thousandths};
use crate::trace::{self, Reading};

/// A small generator, so that a failure comes back.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    /// A text with a few faults in it.
    fn hurt(&mut self, text: &str) -> String {
        const PARTS: [&str; 22] = [
            "",
            "\"",
            "'",
            ":",
            "- ",
            "\n",
            "\r",
            ",",
            ";",
            "{{",
            "[",
            "}",
            "-1",
            "99999999999999999999",
            "NaN",
            "ä\u{a0}",
            "\t",
            "1e400",
            "=>",
            " @[",
            "*/0",
            "null",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(2) {
            let from = self.below(chars.len() + 1);
            let until = (from + self.below(6)).min(chars.len());
            let part: Vec<char> = match self.below(3) {
                0 => chars[from..until].iter().chain(&chars[from..until]).copied().collect(),
                _ => PARTS[self.below(PARTS.len())].chars().collect(),
            };
            chars.splice(from..until, part);
        }
        chars.into_iter().collect()
    }
}

fn texts(name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases.into_iter().filter_map(|case| std::fs::read_to_string(case.join(name)).ok()).collect()
}

#[test]
fn hurt_manifests_are_read_or_refused() {
    let (mut dice, mut texts) = (Dice(1), texts("manifest.yaml"));
    // The README's own example, which must be whole as it stands.
    let fleet = include_str!("../README.md").split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut stream = Stream::default();
    assert_eq!(read("README.md", fleet, &[], &mut stream).and_then(|()| stream.choose(None)), Ok(()));
    texts.push(fleet.to_owned());
    let edit = Edit::parse("spec.metrics[0].resource.target.averageUtilization=60").unwrap();
    let mut taken = 0;
    for turn in 0..6_000 {
        let text = dice.hurt(&texts[turn % texts.len()]);
        let mut stream = Stream::default();
        let edits = if turn % 3 == 0 { std::slice::from_ref(&edit) } else { &[] };
        match read("a.yaml", &text, edits, &mut stream).and_then(|()| stream.choose(None)) {
            Ok(()) => taken += 1,
            Err(error) => assert!(!error.message.is_empty()),
        }
        for autoscaler in &stream.kinds.autoscalers {
            let _ = crate::lint::look(autoscaler, None);
        }
    }
    assert!(taken > 300, "{taken} were still manifests");
}

#[test]
fn hurt_traces_are_read_or_refused() {
    let mut texts = texts("trace.csv");
    texts.extend(self::texts("trace.json"));
    texts.extend([
        "\u{feff}sep=;\r\n\"Series\";\"Time\";\"Value\"\r\n\"a\";\"2018-12-12T12:00:00+11:00\";1,721,992,142.283\r\n".to_owned(),
        "{a=\"b\"} =>\n23215032 @[1690724700]\n1 @[1690724760.5]\n".to_owned(),
        "{\"metric\":{\"a\":\"b\"},\"values\":[1,null],\"timestamps\":[1690724700000,1690724760000]}\n".to_owned(),
        "{\"Label\":\"CPU\",\"Datapoints\":[{\"Timestamp\":\"2026-06-01T08:00:00Z\",\"Sum\":40.0,\"Unit\":\"Percent\"}]}".to_owned(),
        "{\"series\":[{\"pointlist\":[[1575317847000.0,0.5],[1575317907000.0,null]],\"interval\":60}]}".to_owned(),
        "{\"timeSeries\":[{\"points\":[{\"interval\":{\"endTime\":\"2026-06-01T08:00:00Z\"},\"value\":{\"int64Value\":\"5\"}}]}]}".to_owned(),
        "Time,Load\n2026-10-25 02:30:00,12.5 %\n2026-10-25 02:30:00,1.2 K\n".to_owned(),
    ]);
    let (mut dice, mut taken) = (Dice(2), 0);
    let reading = Reading { zone: jiff::tz::TimeZone::get("Europe/Berlin").ok(), fold: None };
    for turn in 0..6_000 {
        let text = dice.hurt(&texts[turn % texts.len()]);
        let mut findings: Vec<Finding> = Vec::new();
        match trace::read("a", &text, &reading, &mut findings) {
            Ok(columns) => {
                taken += 1;
                assert!(columns.iter().all(|column| column.points.windows(2).all(|two| two[0].0 < two[1].0)));
            }
            Err(error) => assert!(!error.message.is_empty()),
        }
    }
    assert!(taken > 500, "{taken} were still traces");
}

#[test]
fn hurt_words_are_read_or_refused() {
    let mut dice = Dice(3);
    let names = ["queue".to_owned(), "rate".to_owned()];
    for turn in 0..20_000 {
        let formula =
            "count([queue, rate], {# > 1.5e1}) > 1 and not (queue ?? 2 ** -3 < rate) ? max(queue, 1) : -rate / 2";
        if let Ok(read) = Formula::parse(&dice.hurt(formula), &names) {
            let _ = read.value(&[Some(3.0), None]);
        }
        let schedule = ["*/15 0-6,22 1 JAN-mar MON-FRI", "30 6 * * 1-5", "0/7 ? L * 0"][turn % 3];
        let _ = Schedule::parse(&dice.hurt(schedule));
        let _ = thousandths(&dice.hurt(["30000m", "1.5Gi", "-1e-3"][turn % 3]));
        let _ = duration_ms(&dice.hurt("1h30m5s"));
        let _ = Condition::parse(&dice.hurt("short >= 1.5 %"));
        let _ = Edit::parse(&dice.hurt("spec.metrics[0].type=Resource"));
    }
}
