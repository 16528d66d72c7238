use super::*;

const WHOLE: &str = "\
stages: [build, check, ship]
before_script:
  - echo common
variables:
  COLOUR: blue
  COUNT: 3
compile:
  stage: build
  tags: [linux, big, linux]
  script:
    - make
    - |
      echo two
      echo lines
unit:
  stage: check
  before_script: []
  script: make test
  variables: { COLOUR: red, PRICE: 5$$ }
  retry: 2
  timeout: 1h 30m
lint:
  stage: check
  needs: []
  allow_failure: true
  script: [make lint]
cleanup:
  stage: check
  needs: [compile, { job: unit }]
  when: always
  retry: { max: 1 }
  script: [rm -rf out]
release:
  stage: ship
  when: manual
  allow_failure: false
  script: [make release]
";

#[test]
fn what_the_queue_needs_is_taken() {
    let file = CiFile::parse(WHOLE).unwrap();
    assert_eq!(file.stages, ["build", "check", "ship"]);
    let [compile, unit, lint, cleanup, release] = file.jobs.as_slice() else { unreachable!("five jobs") };
    assert_eq!(compile.script, ["echo common", "make", "echo two\necho lines\n"]);
    assert_eq!((compile.line, compile.stage, compile.tags.as_slice()), (7, 0, &["big".into(), "linux".into()][..]));
    assert_eq!(compile.variables["COUNT"].text, "3");
    assert_eq!((unit.script.as_slice(), unit.retry), (&["make test".to_owned()][..], 2));
    assert_eq!((unit.variables["COLOUR"].text.as_str(), unit.variables["PRICE"].text.as_str()), ("red", "5$$"));
    assert_eq!(unit.timeout_s, Some(5400));
    assert_eq!((lint.needs.as_deref(), lint.allow_failure), (Some(&[][..]), true));
    assert_eq!((cleanup.needs.as_deref(), cleanup.when, cleanup.retry), (Some(&[0, 1][..]), JobWhen::Always, 1));
    assert_eq!((release.when, release.allow_failure, release.needs.as_deref()), (JobWhen::Manual, false, None));
}

#[test]
fn stages_without_jobs_of_their_own_are_not_shown() {
    let file = CiFile::parse("a: {script: x}\nb: {stage: .post, script: x, when: manual}\n").unwrap();
    assert_eq!(file.stages, ["build", "test", "deploy", ".post"]);
    assert_eq!((file.jobs[0].stage, file.jobs[1].stage), (1, 3));
    assert!(file.jobs[1].allow_failure, "nobody waits for a manual job");
}

#[test]
fn rules_references_and_matrices_are_the_readers() {
    let text = "
.base: {before_script: [echo base], variables: {A: base}}
a: {extends: .base, script: [!reference [.base, before_script], echo a], rules: [{if: $CI_COMMIT_BRANCH == \"main\"}]}
b: {script: x, only: [tags]}
c: {script: x, parallel: {matrix: [{V: [1, 2]}]}}
";
    let file = CiFile::parse(text).unwrap();
    let names: Vec<&str> = file.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["a", "c: [1]", "c: [2]"]);
    assert_eq!(file.jobs[0].script, ["echo base", "echo base", "echo a"]);
    assert_eq!(
        (file.jobs[2].variables["V"].text.as_str(), file.jobs[2].predefined["CI_NODE_INDEX"].text.as_str()),
        ("2", "2")
    );
}

#[test]
fn included_files_are_asked_for_one_by_one() {
    let mut files = Fetched::default();
    let context = crate::ci::plan::context("refs/heads/main", &"0".repeat(40), "s", "demo", 1);
    files.put(FILE, Some("include: [ci/a.yml, ci/none.yml]\nb: {script: x}\n".to_owned()));
    assert!(CiFile::read(&files, &context).is_err());
    assert_eq!(files.missing().as_deref(), Some("ci/a.yml"));
    files.put("ci/a.yml", Some("a:\n  script: x\n  stage: none\n".to_owned()));
    assert!(CiFile::read(&files, &context).is_err());
    assert_eq!(files.missing().as_deref(), Some("ci/none.yml"));
    files.put("ci/none.yml", None);
    let told = CiFile::read(&files, &context).unwrap_err().to_string();
    assert_eq!((told.as_str(), files.missing()), ("line 1: `include`: there is no file `ci/none.yml`", None));
    files.put("ci/none.yml", Some("c: {script: x}".to_owned()));
    let told = CiFile::read(&files, &context).unwrap_err().to_string();
    assert!(told.starts_with("ci/a.yml, line 3: `a.stage`: the stage `none` is not among"), "{told}");
}

#[test]
fn what_this_host_does_not_do_is_refused_or_noted() {
    for (job, wanted) in [
        ("after_script: [x]", "line 1: `a`: `after_script` is not supported"),
        ("services: [x]", "line 1: `a`: `services` are not supported"),
        ("environment: x", "line 1: `a`: `environment` is not supported"),
        ("resource_group: x", "line 1: `a`: `resource_group` is not supported"),
        ("when: delayed, start_in: 1s", "line 1: `a`: `when: delayed` is not supported"),
        ("allow_failure: {exit_codes: 1}", "line 1: `a`: `allow_failure:exit_codes` is not supported"),
        ("retry: {max: 1, when: script_failure}", "line 1: `a`: `retry` is supported as a number alone"),
        ("artifacts: {paths: [x]}", "line 1: `a`: `artifacts` are not handed to later jobs"),
        ("timeout: 25h", "line 1: `a`: its `timeout` is longer than 24 h"),
        ("tags: [a b]", "line 1: `a`: `a b` is no tag"),
        (
            "rules: [{exists: [x]}]",
            "line 1: `a`: the files of the commit cannot be listed: this host does not list files",
        ),
        ("rules: [{changes: [x]}]", "line 1: `a`: changes cannot be listed: this host does not compare commits"),
        ("frob: 1", "line 1: `a.frob`: is no key of a job that is known"),
        ("needs: [none]", "line 1: `a.needs`: `a` needs `none`, which is no job of the file"),
    ] {
        let text = format!("a: {{script: x, {job}}}\nz: {{stage: deploy, script: x}}\n");
        let found = CiFile::parse(&text).expect_err(&text).to_string();
        assert!(found.starts_with(wanted), "{text:?}\n found {found}\nwanted {wanted}");
        assert!(!found.contains("--"), "flags of another program are not this one's: {found}");
    }
    let file =
        CiFile::parse("a: {script: x, image: rust, cache: {paths: [x]}, coverage: /xy/, artifacts: {paths: [x]}}\n")
            .unwrap();
    let noted = ["image rust", "cache", "artifacts", "coverage"]
        .iter()
        .all(|word| file.notes.iter().any(|note| note.contains(word)));
    assert!(noted, "{:?}", file.notes);
}

#[test]
fn a_pipeline_that_an_older_forge_has_stored_is_read() {
    let stored = r#"{"stages":["test"],"jobs":[{"name":"unit","line":3,"stage":0,"script":["make"],"tags":[],
        "variables":{"PRICE":"5$"},"allow_failure":false,"retry":0,"timeout_s":null,"needs":null,"when":"on_success"}]}"#;
    let file: CiFile = serde_json::from_str(stored).unwrap();
    assert_eq!(file.jobs[0].variables["PRICE"], Value::raw("5$"), "as it was, and nothing is put into it again");
    let again: CiFile = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
    assert_eq!(again, file);
}
