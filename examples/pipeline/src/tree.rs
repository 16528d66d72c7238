//! Trees of files: the snapshot of the project, a job's own copy of it, and what is taken out of one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use gitlab_ci::{Glob, Style, is_pattern};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The most files that one walk looks at.
const MAX_FILES: usize = 2_000_000;

/// Copies a file or a link, with its permissions; folders on the way are made. Never a hard link: a write through one
/// would change the other file.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    match fs::symlink_metadata(to) {
        Ok(there) if there.is_dir() && !meta.is_dir() => fs::remove_dir_all(to)?,
        // What stands there is replaced, not written through: it may be a link.
        Ok(there) if !there.is_dir() => fs::remove_file(to)?,
        Ok(_) | Err(_) => {}
    }
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if meta.is_dir() {
        return make_folder(to);
    }
    // Copies by reference where the file system can.
    fs::copy(from, to).map(drop)
}

/// Makes a folder and those that lead to it; a link or file in its way is replaced, so that no write leaves the tree.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// All files, links and empty folders below a folder, by name from it, sorted.
pub(crate) fn walk(root: &Path, but: &[&str]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        let mut is_empty = true;
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            is_empty = false;
            if folder.as_os_str().is_empty() && but.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path);
            } else if let Some(path) = path.to_str() {
                found.push(path.to_owned());
            }
            if found.len() > MAX_FILES {
                return Err(io::Error::other(format!("there are more than {MAX_FILES} files in {}", root.display())));
            }
        }
        if let (true, Some(path)) = (is_empty, folder.to_str().filter(|path| !path.is_empty())) {
            found.push(path.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Copies everything below a folder into another.
pub(crate) fn copy_all(from: &Path, to: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(to)?;
    let names = walk(from, &[])?;
    for name in &names {
        copy(&from.join(name), &inside(to, name)?)?;
    }
    Ok(names)
}

/// The place of a name in a tree. A link on the way is replaced by a folder, so that nothing is written outside.
fn inside(root: &Path, name: &str) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    let parts: Vec<Component<'_>> = Path::new(name).components().collect();
    for (at, part) in parts.iter().enumerate() {
        let Component::Normal(part) = part else {
            return Err(io::Error::other(format!("`{name}` leaves its tree")));
        };
        path.push(part);
        let is_last = at + 1 == parts.len();
        if !is_last && fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(&path)?;
        }
    }
    Ok(path)
}

/// Files of the project, copied once for a run into a folder that is new.
pub(crate) fn snapshot(root: &Path, names: &[String], to: &Path, with_submodules: bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let share = names.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = names
            .chunks(share)
            .map(|part| scope.spawn(move || snapshot_part(root, part, to, with_submodules)))
            .collect();
        parts
            .into_iter()
            .try_for_each(|part| part.join().unwrap_or_else(|_| Err(io::Error::other("a thread has ended"))))
    })
}

fn snapshot_part(root: &Path, names: &[String], to: &Path, with_submodules: bool) -> io::Result<()> {
    // Folders that were looked at: whether no link leads to them, so that nothing outside of the project is copied.
    let mut folders: BTreeMap<&str, bool> = BTreeMap::new();
    for name in names {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_new = !folders.contains_key(folder);
        let is_own = *folders.entry(folder).or_insert_with(|| folder.is_empty() || is_reached(root, name));
        if !is_own {
            continue;
        }
        if is_new {
            fs::create_dir_all(to.join(folder))?;
        }
        let (from, to) = (root.join(name), to.join(name));
        match fs::symlink_metadata(&from) {
            Ok(meta) if meta.is_dir() && with_submodules => {
                fs::create_dir_all(&to)?;
                for inner in walk(&from, &[".git"])? {
                    copy(&from.join(&inner), &inside(&to, &inner)?)?;
                }
            }
            Ok(meta) if meta.is_dir() => fs::create_dir_all(&to)?,
            Ok(meta) if meta.is_symlink() => symlink(fs::read_link(&from)?, &to)?,
            Ok(meta) if meta.is_file() => {
                fs::copy(&from, &to)?;
                // A checkout's files can be written, whatever somebody did to the user's own.
                let mode = meta.permissions().mode();
                if mode & 0o600 != 0o600 {
                    fs::set_permissions(&to, fs::Permissions::from_mode(mode | 0o600))?;
                }
            }
            // A socket or a pipe is nothing that a checkout has.
            Ok(_) => {}
            // Tracked, but deleted and not committed.
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// How a job's own copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// An overlay on the snapshot, mounted where nobody but the job's thread and its processes sees it.
    Overlay,
    /// A copy of every file.
    Files,
}

/// Makes a job's copy of the snapshot at `place/checkout`, by overlay if that can be done here.
pub(crate) fn checkout(source: &Path, place: &Path, may_overlay: bool) -> io::Result<Copying> {
    let checkout = place.join("checkout");
    fs::create_dir_all(&checkout)?;
    if may_overlay && overlay(source, place, &checkout).is_ok() {
        return Ok(Copying::Overlay);
    }
    copy_all(source, &checkout)?;
    Ok(Copying::Files)
}

/// Mounts an overlay in a mount namespace of this thread's own: it goes with the thread, whatever happens.
fn overlay(source: &Path, place: &Path, checkout: &Path) -> io::Result<()> {
    let text = |path: &Path| path.to_str().filter(|path| !path.contains([',', ':', '\\'])).map(str::to_owned);
    let (upper, work) = (place.join("upper"), place.join("work"));
    let (Some(lower), Some(up), Some(wo)) = (text(source), text(&upper), text(&work)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let owner = fs::metadata(source)?;
    // The root of the tree is the upper folder's.
    std::os::unix::fs::chown(&upper, Some(owner.uid()), Some(owner.gid()))?;
    fs::set_permissions(&upper, owner.permissions())?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let options = format!("lowerdir={lower},upperdir={up},workdir={wo}");
    mount::<str, Path, str, str>(Some("overlay"), checkout, Some("overlay"), MsFlags::empty(), Some(&options))?;
    Ok(())
}

/// What patterns of `artifacts` or `cache` choose in a tree.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) files: Vec<String>,
    /// Patterns that chose nothing.
    pub(crate) unmatched: Vec<String>,
}

/// The files that patterns choose. A pattern that names a folder chooses all in it; an exclusion only what it names.
pub(crate) fn choose(
    root: &Path,
    paths: &[String],
    exclude: &[String],
    untracked: Option<&BTreeSet<String>>,
) -> Result<Chosen, String> {
    let mut chosen = Chosen::default();
    let failed = |why: io::Error| format!("files cannot be listed: {why}");
    let excluded: Vec<Glob> = exclude
        .iter()
        .map(|pattern| Glob::new(pattern.trim_end_matches('/'), Style::Doublestar))
        .collect::<Result<_, _>>()?;
    let mut all: Option<Vec<String>> = None;
    let mut found: BTreeSet<String> = BTreeSet::new();
    for pattern in paths {
        let clean = clean(pattern);
        let Some(clean) = clean else { continue };
        let before = found.len();
        if !is_pattern(&clean) {
            // The common case needs no walk through the whole tree.
            let path = root.join(&clean);
            match fs::symlink_metadata(&path) {
                // What a link leads to is not of this tree.
                Ok(_) if !is_reached(root, &clean) => chosen.unmatched.push(pattern.clone()),
                Ok(meta) if meta.is_dir() => {
                    let prefix = if clean.is_empty() { String::new() } else { format!("{clean}/") };
                    let but: &[&str] = if clean.is_empty() { &[".git"] } else { &[] };
                    found.extend(walk(&path, but).map_err(failed)?.into_iter().map(|name| format!("{prefix}{name}")));
                    if found.len() == before {
                        found.insert(clean.clone());
                    }
                }
                Ok(_) => drop(found.insert(clean.clone())),
                Err(_) => chosen.unmatched.push(pattern.clone()),
            }
            continue;
        }
        let glob = Glob::new(&clean, Style::Doublestar)?;
        let names = match &all {
            Some(names) => names,
            None => all.insert(walk(root, &[".git"]).map_err(failed)?),
        };
        let is_chosen = |name: &str| {
            // A folder that matches brings all that is in it.
            glob.matches(name) || name.match_indices('/').any(|(at, _)| glob.matches(&name[..at]))
        };
        found.extend(names.iter().filter(|name| is_chosen(name)).cloned());
        if found.len() == before {
            chosen.unmatched.push(pattern.clone());
        }
    }
    if let Some(tracked) = untracked {
        found.extend(walk(root, &[".git"]).map_err(failed)?.into_iter().filter(|name| !tracked.contains(name)));
    }
    found.retain(|name| !excluded.iter().any(|glob| glob.matches(name)));
    chosen.files = found.into_iter().collect();
    Ok(chosen)
}

/// Whether no link leads to a name.
fn is_reached(root: &Path, name: &str) -> bool {
    let folders = Path::new(name).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    folders.into_iter().all(|folder| fs::symlink_metadata(root.join(folder)).is_ok_and(|meta| meta.is_dir()))
}

/// A pattern as a name from the root of the tree; `None` if it leads out of it.
fn clean(pattern: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Removes a tree, also one with folders that forbid it.
pub(crate) fn remove(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            let mut left = vec![tree.to_owned()];
            while let Some(folder) = left.pop() {
                let meta = fs::symlink_metadata(&folder)?;
                if meta.is_dir() {
                    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
                    for entry in fs::read_dir(&folder)? {
                        left.push(entry?.path());
                    }
                }
            }
            fs::remove_dir_all(tree)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        told => told,
    }
}

/// How many bytes the files of a tree have.
pub(crate) fn size(tree: &Path) -> u64 {
    let mut total = 0;
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else {
            total += meta.len();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        dir
    }

    #[test]
    fn patterns_choose_files_and_folders() {
        let dir = tree(&["out/a", "out/x/b", "src/m.c", "src/m.o", "top", ".git/x"]);
        let choose = |paths: &[&str], exclude: &[&str]| {
            let strings = |all: &[&str]| all.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
            choose(dir.path(), &strings(paths), &strings(exclude), None).unwrap()
        };
        for (paths, exclude, wanted) in [
            (&["out"][..], &[][..], "out/a out/x/b"),
            (&["out/"], &[], "out/a out/x/b"),
            (&["./out/x/"], &[], "out/x/b"),
            (&["out/*"], &[], "out/a out/x/b"),
            (&["**/*.o"], &[], "src/m.o"),
            (&["*"], &["out/x"], "out/a out/x/b src/m.c src/m.o top"),
            (&["."], &["out/**", "**/*.o"], "src/m.c top"),
            (&["src", "top"], &["src/*.o"], "src/m.c top"),
            (&["../etc"], &[], ""),
        ] {
            assert_eq!(choose(paths, exclude).files.join(" "), wanted, "{paths:?} {exclude:?}");
        }
        assert_eq!(choose(&["none", "*.x", "top"], &[]).unmatched, ["none", "*.x"]);
        symlink("/etc", dir.path().join("link")).unwrap();
        assert_eq!(choose(&["link/passwd", "link/*", "link"], &[]).files, ["link"], "a link is kept, and not followed");
        fs::remove_file(dir.path().join("link")).unwrap();
        let tracked = BTreeSet::from(["top".to_owned(), "src/m.c".to_owned()]);
        let untracked = super::choose(dir.path(), &[], &[], Some(&tracked)).unwrap().files;
        assert_eq!(untracked, ["out/a", "out/x/b", "src/m.o"]);
    }

    #[test]
    fn files_of_a_snapshot_can_be_written() {
        let (from, to) = (tree(&["x"]), tempfile::tempdir().unwrap());
        fs::set_permissions(from.path().join("x"), fs::Permissions::from_mode(0o555)).unwrap();
        snapshot(from.path(), &["x".to_owned(), "deleted".to_owned()], &to.path().join("s"), false).unwrap();
        assert_eq!(fs::metadata(to.path().join("s/x")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_snapshot_follows_no_link_out_of_the_project() {
        let (from, other, to) = (tree(&["kept/a"]), tree(&["secret"]), tempfile::tempdir().unwrap());
        symlink(other.path(), from.path().join("link")).unwrap();
        let names = ["kept/a", "link", "link/secret"].map(str::to_owned);
        snapshot(from.path(), &names, &to.path().join("s"), false).unwrap();
        assert!(to.path().join("s/kept/a").is_file());
        assert!(fs::symlink_metadata(to.path().join("s/link")).unwrap().is_symlink());
        assert_eq!(walk(&to.path().join("s"), &[]).unwrap(), ["kept/a", "link"]);
    }

    #[test]
    fn a_copy_is_never_written_through_a_link() {
        let (from, to, victim) = (tree(&["d/file"]), tempfile::tempdir().unwrap(), tree(&["file"]));
        symlink(victim.path(), to.path().join("d")).unwrap();
        copy_all(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(victim.path().join("file")).unwrap(), "file");
        assert_eq!(fs::read_to_string(to.path().join("d/file")).unwrap(), "d/file");
        // Nor by the last name.
        symlink(victim.path().join("file"), to.path().join("link")).unwrap();
        copy(&from.path().join("d/file"), &to.path().join("link")).unwrap();
        assert_eq!(fs::read_to_string(victim.path().join("file")).unwrap(), "file");
    }
}
