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
fn every_supported_key_is_taken() {
    let file = CiFile::parse(WHOLE).unwrap();
    assert_eq!(file.stages, ["build", "check", "ship"]);
    let [compile, unit, lint, cleanup, release] = file.jobs.as_slice() else { panic!("five jobs") };
    assert_eq!(compile.script, ["echo common", "make", "echo two\necho lines\n"]);
    assert_eq!((compile.line, compile.stage, compile.tags.as_slice()), (7, 0, &["big".into(), "linux".into()][..]));
    assert_eq!(compile.variables["COUNT"], "3");
    assert_eq!((unit.script.as_slice(), unit.retry), (&["make test".to_owned()][..], 2));
    assert_eq!((unit.variables["COLOUR"].as_str(), unit.variables["PRICE"].as_str()), ("red", "5$"));
    assert_eq!(unit.timeout_s, Some(5400));
    assert_eq!((lint.needs.as_deref(), lint.allow_failure), (Some(&[][..]), true));
    assert_eq!((cleanup.needs.as_deref(), cleanup.when, cleanup.retry), (Some(&[0, 1][..]), JobWhen::Always, 1));
    assert_eq!((release.when, release.allow_failure, release.needs.as_deref()), (JobWhen::Manual, false, None));
}

#[test]
fn defaults() {
    let file = CiFile::parse("a:\n  script: x\nb:\n  script: x\n  when: manual\n").unwrap();
    assert_eq!(file.stages, ["build", "test", "deploy"]);
    assert_eq!((file.jobs[0].stage, file.jobs[0].allow_failure, file.jobs[0].timeout_s), (1, false, None));
    assert!(file.jobs[1].allow_failure, "nobody waits for a manual job");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let table = [
        ("- a\n- b\n", "line 1: the file must be a mapping of jobs and settings"),
        ("stages: [a]\n", "line 1: the file has no job"),
        ("image: rust\na:\n  script: x\n", "line 1: the key `image` is not supported"),
        ("a:\n  script: x\n  cache: {}\n", "line 3: the key `cache` is not supported"),
        ("a:\n  script: x\n  rules:\n    - if: $X\n", "line 3: the key `rules` is not supported"),
        (".t:\n  script: x\n", "line 1: the hidden job `.t` is not supported"),
        ("a: 5\n", "line 1: `a` is neither a setting nor a job with a `script`"),
        ("a:\n  stage: test\n", "line 1: `a` has no `script`"),
        ("a:\n  script: []\n", "line 1: the `script` of `a` is empty"),
        ("a:\n  script:\n    - ok\n    - echo: x\n", "line 4: a line of `script` must be text"),
        ("a:\n  script: x\n  stage: ship\n", "line 3: `a` is in the stage `ship`, which `stages` does not name"),
        ("stages: [one]\na:\n  script: x\n", "line 2: `a` is in the stage `test`, which `stages` does not name"),
        ("stages: [one, one]\n", "line 1: the stage `one` is there twice"),
        ("stages: one\n", "line 1: `stages` must be a list"),
        ("a:\n  script: x\n  tags: [a b]\n", "line 3: `a b` is no tag"),
        ("a:\n  script: x\n  retry: 11\n", "line 3: `retry` must be a number from 0 to 10"),
        ("a:\n  script: x\n  retry:\n    when: always\n", "line 4: the key `when` of `retry` is not supported"),
        ("a:\n  script: x\n  timeout: soon\n", "line 3: `timeout` must be a time such as"),
        ("a:\n  script: x\n  timeout: 25h\n", "line 3: `timeout` must be a time such as"),
        ("a:\n  script: x\n  allow_failure: yes\n", "line 3: `allow_failure` is `true` or `false`"),
        ("a:\n  script: x\n  when: delayed\n", "line 3: `when: delayed` is not supported"),
        ("a:\n  script: x\n  needs: [b]\n", "line 3: `a` needs `b`, which is no job of this file"),
        ("a:\n  script: x\n  needs: [a]\n", "line 3: `a` needs itself"),
        ("a:\n  script: x\n  needs: [{ job: a, artifacts: true }]\n", "line 3: an entry of `needs` is a job's name"),
        (
            "a:\n  script: x\n  stage: build\n  needs: [b]\nb:\n  script: x\n",
            "line 1: `a` needs `b`, which is in the later stage `test`",
        ),
        ("variables:\n  A: $B\na:\n  script: x\n", "line 2: `A` refers to another variable"),
        ("variables:\n  A-B: x\n", "line 2: `A-B` is no name for a variable"),
        ("a:\n  script: x\nb:\n  script: x\na:\n  script: y\n", "line 5: `a` is there twice: first on line 1"),
    ];
    for (text, wanted) in table {
        let found = CiFile::parse(text).expect_err(text).to_string();
        assert!(found.starts_with(wanted), "{text:?}\n found {found}\nwanted {wanted}");
    }
}

#[test]
fn timeouts() {
    for (text, seconds) in
        [("90", 90), ("90s", 90), ("10 minutes", 600), ("1 hour 5 minutes", 3900), ("2h30m", 9000), ("1 day", 86_400)]
    {
        let file = CiFile::parse(&format!("a:\n  script: x\n  timeout: {text}\n")).unwrap();
        assert_eq!(file.jobs[0].timeout_s, Some(seconds), "{text}");
    }
}

#[test]
fn too_much_is_refused() {
    let many: Vec<_> = (0..=MOST_JOBS).map(|i| format!("j{i}: {{script: x}}\n")).collect();
    let many = many.concat();
    assert!(CiFile::parse(&many).unwrap_err().message.contains("more than 200 jobs"));
    assert!(CiFile::parse(&"# x\n".repeat(MOST_BYTES)).unwrap_err().message.contains("larger than"));
}
