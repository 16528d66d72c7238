//! Any CI file, with one that it may include, is planned or refused with a place.
#![no_main]

use gitlab_ci::{Commit, Context, Memory, Outcome, Reference, Variables, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (root, included) = text.split_once("\u{0}").unwrap_or((text, ""));
    let files = Memory::new([(".gitlab-ci.yml", root), ("a.yml", included)]);
    for reference in [Reference::Branch("main".to_owned()), Reference::Tag("v1".to_owned())] {
        match plan(&files, &Context::new(Commit::default(), reference, "push")) {
            Ok(Outcome::Pipeline(plan)) => {
                for job in &plan.jobs {
                    assert!(job.takes_from.iter().all(|at| *at < plan.jobs.len()));
                    let _values = job.values(Variables::new(), Variables::new());
                }
            }
            Ok(Outcome::None { reason, .. }) => assert!(!reason.is_empty()),
            Err(error) => assert!(error.place.line > 0 && !error.message.is_empty()),
        }
    }
});
