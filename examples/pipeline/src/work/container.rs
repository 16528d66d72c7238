//! Jobs in containers, through the command line of docker or podman.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gitlab_ci::{Image, expand, is_name};

use super::process::Script;
use super::{Attempt, Failure};

/// The label of everything that a run starts, with the run's folder as its value.
const LABEL: &str = "pipeline.run";
/// Where a job finds its script and its files.
const INSIDE: &str = "/pipeline";

/// A container engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    program: &'static str,
    network: Network,
}

/// What containers reach of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// What the machine reaches.
    Outside,
    /// Each other.
    Inside,
}

impl Engine {
    /// The first engine of this machine that answers.
    pub(crate) fn find(network: Network) -> Option<Self> {
        ["docker", "podman"].into_iter().map(|program| Self { program, network }).find(|engine| {
            let mut command = Command::new(engine.program);
            // Docker's client answers without a server, unless it is asked about the server.
            command.args([
                "version",
                "--format",
                if engine.program == "docker" { "{{.Server.Version}}" } else { "{{.Client.Version}}" },
            ]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.program
    }

    /// Runs a command of the engine to its end: what it printed.
    fn ask(&self, words: &[OsString]) -> Result<String, Failure> {
        let done = Command::new(self.program).args(words).stdin(Stdio::null()).output()?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
        let what: Vec<_> = words.iter().take(2).map(|word| word.to_string_lossy()).collect();
        Err(Failure::system(format!("{} {}: {last}", self.program, what.join(" "))))
    }

    /// Ends a container at once, and removes it.
    fn remove(&self, name: &str) {
        // It may have ended, or gone, by itself.
        let _ended = self.ask(&["kill".into(), name.into()]);
        let _gone = self.ask(&["rm".into(), "-f".into(), "-v".into(), name.into()]);
    }

    /// Removes everything that a run has started, in whichever life of this program.
    pub(crate) fn clear(&self, run: &Path) {
        let filter = format!("label={LABEL}={}", run.display());
        for list in [&["ps", "-aq"][..], &["network", "ls", "-q"]] {
            let words: Vec<OsString> = list.iter().copied().chain(["--filter", &filter]).map(Into::into).collect();
            for name in self.ask(&words).unwrap_or_default().lines() {
                if list[0] == "ps" {
                    self.remove(name);
                    continue;
                }
                // It may have gone by itself.
                let _gone = self.ask(&["network".into(), "rm".into(), name.into()]);
            }
        }
    }
}

/// What stands beside a job in containers.
#[derive(Debug, Default)]
pub(super) struct Beside {
    network: Option<String>,
    containers: Vec<String>,
}

impl Attempt<'_> {
    /// The engine, if the job runs in a container.
    pub(super) fn engine(&self) -> Option<&Engine> {
        self.runner.engine.as_ref().filter(|_| self.job.image.is_some())
    }

    /// What the job's things are called in the engine.
    fn label(&self, what: &str) -> String {
        let run = crate::home::digest(self.runner.folders.run.as_os_str().as_encoded_bytes());
        format!("pipeline-{}-{}-{what}", &run[..12], self.at)
    }

    fn labels(&self) -> [OsString; 2] {
        ["--label".into(), format!("{LABEL}={}", self.runner.folders.run.display()).into()]
    }

    /// Starts the job's services.
    pub(super) fn start_services(&mut self, values: &BTreeMap<String, String>) -> Result<Beside, Failure> {
        let mut beside = Beside::default();
        let Some(engine) = self.engine().cloned() else { return Ok(beside) };
        if self.job.services.is_empty() {
            return Ok(beside);
        }
        let network = self.label("net");
        let mut words: Vec<OsString> = vec!["network".into(), "create".into()];
        words.extend(self.labels());
        if engine.network == Network::Inside {
            words.push("--internal".into());
        }
        words.push(network.clone().into());
        engine.ask(&words)?;
        beside.network = Some(network);
        for (number, service) in self.job.services.clone().iter().enumerate() {
            let told = self.start_service(&engine, service, number, values, &mut beside);
            if let Err(why) = told {
                self.stop_services(&beside);
                return Err(why);
            }
        }
        Ok(beside)
    }

    fn start_service(
        &mut self,
        engine: &Engine,
        service: &Image,
        number: usize,
        values: &BTreeMap<String, String>,
        beside: &mut Beside,
    ) -> Result<(), Failure> {
        let name = self.label(&format!("service-{number}"));
        let image = expand(&service.name, values);
        let mut words: Vec<OsString> = vec!["run".into(), "--detach".into(), "--name".into(), name.clone().into()];
        words.extend(self.labels());
        if let Some(network) = &beside.network {
            words.extend(["--network".into(), network.into()]);
        }
        let aliases = if service.aliases.is_empty() { aliases_of(&image) } else { service.aliases.clone() };
        for alias in &aliases {
            words.extend(["--network-alias".into(), alias.into()]);
        }
        // A file, as a list of processes shows words to everybody.
        let file = self.place.join(format!("service-{number}.env"));
        let own = service.variables.iter().map(|(name, value)| (name.clone(), expand(&value.text, values)));
        let all: BTreeMap<String, String> = values.clone().into_iter().chain(own).collect();
        fs::write(&file, env_file(&all))?;
        words.extend(["--env-file".into(), file.into()]);
        words.extend(image_words(service, &image, values));
        words.extend(service.command.iter().flatten().map(Into::into));
        engine.ask(&words)?;
        beside.containers.push(name);
        self.note(&format!("service {image} is reached as {}", aliases.join(", ")));
        Ok(())
    }

    pub(super) fn stop_services(&self, beside: &Beside) {
        let Some(engine) = self.engine() else { return };
        for name in &beside.containers {
            engine.remove(name);
        }
        if let Some(network) = &beside.network {
            let _gone = engine.ask(&["network".into(), "rm".into(), network.into()]);
        }
    }

    /// Ends the job's container, whose client was killed.
    pub(super) fn end_container(&self) {
        if let Some(engine) = self.engine() {
            engine.remove(&self.label("job"));
        }
    }

    /// Where a job in a container sees its checkout.
    pub(super) fn container_folder(&self) -> PathBuf {
        let project = self.job.variables.get("CI_PROJECT_PATH").map_or("project", |value| value.text.as_str());
        Path::new("/builds").join(project)
    }

    /// The place of a file of the job's in its container.
    pub(super) fn container_file(name: &str) -> PathBuf {
        Path::new(INSIDE).join("files").join(name)
    }

    /// The command that runs a script in the job's container.
    pub(super) fn container_command(&self, engine: &Engine, script: &Script<'_>) -> Result<Command, Failure> {
        let image = self.job.image.clone().unwrap_or_default();
        let values = script.values;
        let name = expand(&image.name, values);
        if name.is_empty() {
            return Err(Failure::system("the name of its image is empty once variables are put in"));
        }
        let folder = self.container_folder();
        let mut words: Vec<OsString> = vec!["run".into(), "--rm".into(), "--name".into(), self.label("job").into()];
        words.extend(self.labels());
        words.extend(["--workdir".into(), folder.clone().into()]);
        match (&self.beside.network, engine.network) {
            (Some(network), _) => words.extend(["--network".into(), network.into()]),
            (None, Network::Inside) => words.extend(["--network".into(), "none".into()]),
            (None, Network::Outside) => {}
        }
        let mut mount = |from: &Path, to: &Path, mode: &str| {
            let mut word = from.as_os_str().to_owned();
            word.push(":");
            word.push(to);
            word.push(mode);
            words.extend(["--volume".into(), word]);
        };
        mount(&self.checkout(), &folder, "");
        mount(&script.file, &Path::new(INSIDE).join("script"), ":ro");
        mount(&self.runner.folders.objects, &self.runner.objects_seen, ":ro");
        for (from, to) in script.mounts {
            mount(from, to, ":ro");
        }
        words.extend(image_words(&image, &name, values));
        let run =
            format!("if command -v bash >/dev/null 2>&1; then exec bash {INSIDE}/script; fi; exec sh {INSIDE}/script");
        words.extend(["sh".into(), "-c".into(), run.into()]);
        let mut command = Command::new(engine.program);
        command.args(words);
        Ok(command)
    }
}

/// The options of an image, and its name.
fn image_words(image: &Image, name: &str, values: &BTreeMap<String, String>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let policy = image.pull_policy.first().map(String::as_str);
    match policy {
        Some("always") => words.extend(["--pull".into(), "always".into()]),
        Some("never") => words.extend(["--pull".into(), "never".into()]),
        Some(_) | None => words.extend(["--pull".into(), "missing".into()]),
    }
    if let Some(user) = &image.user {
        words.extend(["--user".into(), expand(user, values).into()]);
    }
    if let Some(platform) = &image.platform {
        words.extend(["--platform".into(), expand(platform, values).into()]);
    }
    let entrypoint: Vec<&String> = image.entrypoint.iter().flatten().collect();
    if let Some(first) = entrypoint.first() {
        words.extend(["--entrypoint".into(), first.into()]);
    }
    words.push(name.into());
    words.extend(entrypoint.into_iter().skip(1).map(Into::into));
    words
}

/// Variables as the engine reads them: one a line, so that a value with several lines is left out.
fn env_file(values: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in values.iter().filter(|(name, value)| is_name(name) && !value.contains('\n')) {
        // Writing into a text cannot fail.
        let _written = writeln!(text, "{name}={value}");
    }
    text
}

/// The names that a service is reached by if the file gives none.
fn aliases_of(image: &str) -> Vec<String> {
    let (folder, last) = image.rsplit_once('/').unwrap_or(("", image));
    let last = last.split(['@', ':']).next().unwrap_or(last);
    let bare = if folder.is_empty() { last.to_owned() } else { format!("{folder}/{last}") };
    let bare = bare.replace(':', "-");
    let mut aliases = vec![bare.replace('/', "__"), bare.replace('/', "-")];
    aliases.dedup();
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_by_its_image() {
        assert_eq!(aliases_of("postgres:15"), ["postgres"]);
        assert_eq!(aliases_of("tutum/wordpress:latest"), ["tutum__wordpress", "tutum-wordpress"]);
        assert_eq!(aliases_of("redis@sha256:00"), ["redis"]);
        assert_eq!(aliases_of("r.example.com:5000/a/b"), ["r.example.com-5000__a__b", "r.example.com-5000-a-b"]);
    }

    #[test]
    fn options_of_an_image_stand_before_its_name() {
        let words = |image: &Image| {
            let words = image_words(image, "i", &BTreeMap::new());
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(&Image::default()), "--pull missing i");
        let image = Image {
            entrypoint: Some(vec!["/bin/e".to_owned(), "-x".to_owned()]),
            pull_policy: vec!["never".to_owned()],
            user: Some("u".to_owned()),
            ..Image::default()
        };
        assert_eq!(words(&image), "--pull never --user u --entrypoint /bin/e i -x");
        assert_eq!(
            words(&Image { entrypoint: Some(vec![String::new()]), ..Image::default() }),
            "--pull missing --entrypoint  i"
        );
    }
}
