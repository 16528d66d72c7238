//! How far long work has come, on the terminal; nothing where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Work of `steps` steps. It vanishes when it is dropped.
pub(crate) fn bar(what: &'static str, steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64).with_message(what);
    styled(bar, "{msg} {wide_bar} {human_pos}/{human_len} {eta}")
}

/// Work of which nobody knows how long it takes.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner().with_message(what), "{spinner} {msg} {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
