//! What of the machine a job sees.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// What programs are made of; on most systems all but the first are links into it.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs look up. Nothing here is a secret, and nothing here may become a folder that holds one.
const ETC: [&str; 18] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/debian_version",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// What names are resolved with, where there is a network.
const ETC_NETWORK: [&str; 3] = ["/etc/host.conf", "/etc/hosts", "/etc/resolv.conf"];

/// Folders that never become visible, whoever names them: they hold sockets, secrets, other people's files.
const NEVER: [&str; 9] = ["/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var"];

/// Options of bwrap.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) words: Vec<OsString>,
    made: BTreeSet<PathBuf>,
}

impl Mounts {
    pub(crate) fn add<S: AsRef<OsStr>>(&mut self, words: &[S]) {
        self.words.extend(words.iter().map(|word| word.as_ref().to_owned()));
    }

    pub(crate) fn writable(&mut self, from: &Path, to: &Path) {
        self.way_to(to);
        self.add(&[OsStr::new("--bind"), from.as_os_str(), to.as_os_str()]);
    }

    pub(crate) fn read_only(&mut self, from: &Path, to: &Path) {
        self.way_to(to);
        self.add(&[OsStr::new("--ro-bind"), from.as_os_str(), to.as_os_str()]);
    }

    /// The folders that lead somewhere: bubblewrap would make them for their owner alone.
    fn way_to(&mut self, path: &Path) {
        let mut missing: Vec<_> = path.ancestors().skip(1).filter(|up| up.parent().is_some()).collect();
        missing.reverse();
        for folder in missing {
            if self.made.insert(folder.to_owned()) {
                self.add(&[OsStr::new("--perms"), OsStr::new("0755"), OsStr::new("--dir"), folder.as_os_str()]);
            }
        }
    }

    /// The system's programs; folders to hide in them are covered by empty ones.
    pub(crate) fn system(&mut self, hidden: &[PathBuf]) {
        for name in SYSTEM {
            let path = Path::new(name);
            let Ok(meta) = fs::symlink_metadata(path) else { continue };
            if meta.is_symlink() {
                if let Ok(target) = fs::read_link(path) {
                    self.add(&[OsStr::new("--symlink"), target.as_os_str(), path.as_os_str()]);
                }
            } else if meta.is_dir() {
                self.read_only(path, path);
                for inside in hidden.iter().filter(|inside| inside.starts_with(path)) {
                    self.cover(inside);
                }
            }
        }
    }

    fn cover(&mut self, path: &Path) {
        if path.is_dir() {
            self.add(&[OsStr::new("--perms"), OsStr::new("0000"), OsStr::new("--tmpfs"), path.as_os_str()]);
        } else if path.exists() {
            self.add(&[OsStr::new("--ro-bind"), OsStr::new("/dev/null"), path.as_os_str()]);
        }
    }

    /// The few files of `/etc`, and those of our own that say who the job is.
    pub(crate) fn etc(&mut self, own: &Path, network: bool) {
        let more = ETC_NETWORK.iter().filter(|_| network);
        for name in ETC.iter().chain(more) {
            let path = Path::new(name);
            // A link leads to what it stands for, and only that becomes visible.
            let Ok(real) = fs::canonicalize(path) else { continue };
            self.read_only(&real, path);
        }
        for name in ["passwd", "group", "nsswitch.conf"] {
            self.read_only(&own.join(name), &Path::new("/etc").join(name));
        }
    }

    /// Folders with programs that are not the system's. Those that are not fit to be seen are left out.
    pub(crate) fn tools(&mut self, folders: &[PathBuf], hidden: &[PathBuf]) {
        let mut seen: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let Ok(real) = fs::canonicalize(folder) else { continue };
            let inside_system = SYSTEM.iter().any(|name| real.starts_with(name));
            if inside_system || seen.contains(folder) || touches(&real, hidden) {
                continue;
            }
            self.read_only(&real, folder);
            seen.push(folder.clone());
        }
    }
}

/// Whether a folder holds, or lies in, something that is hidden.
fn touches(folder: &Path, hidden: &[PathBuf]) -> bool {
    hidden.iter().any(|hidden| hidden.starts_with(folder) || folder.starts_with(hidden))
}

/// The folders with programs that a search path names, as far as a job may see them: each outside of home folders with
/// what lies beside its `bin`; of one inside only Rust's toolchains and their launchers are known to hold no secret.
pub(crate) fn tool_folders(path: &OsStr, rustup: Option<&Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        let is_cargo = folder.ends_with(".cargo/bin");
        if is_cargo {
            found.push(folder);
            if let Some(rustup) = rustup {
                found.extend(["toolchains", "settings.toml"].map(|part| rustup.join(part)));
            }
            continue;
        }
        if folder.components().count() < 3 || NEVER.iter().any(|never| folder.starts_with(never)) {
            continue;
        }
        let whole = folder.parent().filter(|up| folder.ends_with("bin") && up.components().count() >= 3);
        found.push(whole.unwrap_or(&folder).to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_search_path_only_what_holds_programs_is_seen() {
        let path = "/usr/bin:/opt/node/bin:/root/.cargo/bin:/home/u/bin:/home/u/.local/bin:/:/opt:.:relative:/run/x/bin:/srv/t";
        let found = tool_folders(OsStr::new(path), Some(Path::new("/root/.rustup")));
        let wanted = [
            "/usr/bin",
            "/opt/node",
            "/root/.cargo/bin",
            "/root/.rustup/toolchains",
            "/root/.rustup/settings.toml",
            "/srv/t",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn what_is_hidden_is_not_seen_through_a_folder_of_tools() {
        let dir = tempfile::tempdir().unwrap();
        let (tools, data) = (dir.path().join("tools"), dir.path().join("tools/data"));
        fs::create_dir_all(data.join("bin")).unwrap();
        let shown = |folder: &Path, hidden: &Path| {
            let mut mounts = Mounts::default();
            mounts.tools(&[folder.to_owned()], &[hidden.to_owned()]);
            !mounts.words.is_empty()
        };
        assert!(!shown(&tools, &data));
        assert!(!shown(&data.join("bin"), &data));
        assert!(!shown(&data, &data));
        assert!(shown(&tools, &dir.path().join("other")));
    }
}
