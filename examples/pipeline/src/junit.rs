//! The result of a run as a `JUnit` report: one test case a job.

use std::fmt::Write as _;

use crate::report::{JobLine, State};

/// How much of the end of a job's log is in the report, in bytes.
const MAX_LOG_BYTES: usize = 64 << 10;

/// The report of a run with the name of its project; `log` gives the log of a job by its number.
pub(crate) fn report(name: &str, jobs: &[JobLine], log: &dyn Fn(usize) -> Option<String>) -> String {
    let count = |states: &[State]| jobs.iter().filter(|job| states.contains(&job.state)).count();
    let not_run = [State::Skipped, State::Manual, State::Created, State::Canceled, State::Absent];
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let seconds = |job: &JobLine| match (job.started_ms, job.finished_ms) {
        (Some(started), Some(finished)) => {
            std::time::Duration::from_millis(finished.saturating_sub(started)).as_secs_f64()
        }
        _ => 0.0,
    };
    // Writing into a text cannot fail.
    let _written = writeln!(
        out,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
        escaped(name),
        jobs.len(),
        count(&[State::Failed]),
        count(&not_run),
        jobs.iter().map(seconds).sum::<f64>()
    );
    for (at, job) in jobs.iter().enumerate() {
        let why = escaped(job.reason.as_deref().unwrap_or_default());
        let _written = write!(
            out,
            "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escaped(&job.stage),
            escaped(&job.name),
            seconds(job)
        );
        if job.state == State::Failed {
            let _written = write!(out, "<failure message=\"{why}\"/>");
        } else if not_run.contains(&job.state) {
            let _written = write!(out, "<skipped message=\"{}: {why}\"/>", job.state.word());
        }
        if let Some(text) = log(at).filter(|text| !text.is_empty()) {
            let start = text.len().saturating_sub(MAX_LOG_BYTES);
            let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let _written = write!(out, "<system-out>{}</system-out>", escaped(&text[start..]));
        }
        out.push_str("</testcase>\n");
    }
    out.push_str("</testsuite>\n");
    out
}

/// A text as XML has it. Characters that XML has not become a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_a_test_case() {
        let job = |name: &str, state, reason: Option<&str>| JobLine {
            name: name.to_owned(),
            stage: "test".to_owned(),
            state,
            attempts: 1,
            exit_code: None,
            reason: reason.map(str::to_owned),
            coverage: None,
            started_ms: Some(1_000),
            finished_ms: Some(2_500),
        };
        let jobs = [
            job("a <1>", State::Success, None),
            job("b", State::Failed, Some("exit code 1")),
            job("c", State::Skipped, Some("1 that it waits for failed")),
        ];
        let text = report("p", &jobs, &|at| (at == 1).then(|| "x & \u{1b}y\n".to_owned()));
        for part in [
            "tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.500\"",
            "name=\"a &lt;1&gt;\" time=\"1.500\"></testcase>",
            "<failure message=\"exit code 1\"/><system-out>x &amp; ?y\n</system-out>",
            "<skipped message=\"skipped: 1 that it waits for failed\"/>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
