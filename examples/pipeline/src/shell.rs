//! The scripts that a job's shell is given.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A shell of this machine or image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Sh,
}

impl Shell {
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::Bash => "set -eo pipefail\nset +o noclobber\n",
            Self::Sh => "set -e\n(set -o pipefail) 2>/dev/null && set -o pipefail\nset +C\n",
        }
    }
}

/// A script that echoes each command and runs it, all in one shell.
pub(crate) fn script(shell: Shell, commands: &[&str]) -> String {
    let mut script = shell.header().to_owned();
    for command in commands {
        let command = command.trim_end_matches('\n');
        // Writing into a text cannot fail.
        let _written = write!(script, "printf '%s\\n' {}\n{command}\n", quoted(&echo(command)));
    }
    script
}

/// A script whose shell has these variables, where none can be handed to it otherwise.
pub(crate) fn with_environment(values: &BTreeMap<String, String>, script: &str) -> String {
    let mut whole = String::new();
    for (name, value) in values {
        // Writing into a text cannot fail.
        let _written = writeln!(whole, "export {name}={}", quoted(value));
    }
    // The checkout is another user's inside.
    whole.push_str("export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'\n");
    whole + script
}

/// What is shown of a command: its first line.
pub(crate) fn echo(command: &str) -> String {
    let first = command.trim_end_matches('\n').lines().next().unwrap_or_default();
    let more = if command.trim_end_matches('\n').contains('\n') { " # …" } else { "" };
    format!("$ {first}{more}")
}

/// A word that a shell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_echoes_first_lines_and_runs_what_was_written() {
        let text = script(Shell::Bash, &["echo 'a'", "if true\nthen echo b\nfi\n"]);
        let done = std::process::Command::new("bash").arg("-c").arg(text).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "$ echo 'a'\na\n$ if true # …\nb\n");
    }
}
