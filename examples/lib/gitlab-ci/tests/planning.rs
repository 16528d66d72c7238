//! Whole files: what is in the pipeline, what is refused, and where.

use gitlab_ci::{
    AllowFailure, Commit, Context, Files, Job, Memory, Outcome, Plan, Reference, Start, Value, Variables, When, plan,
};

fn context() -> Context {
    let commit =
        Commit { sha: "0123456789abcdef".repeat(2), project: "group/sub/name".to_owned(), ..Commit::default() };
    Context::new(commit, Reference::Branch("main".to_owned()), "push")
}

fn given(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::new(*value))).collect()
}

fn of(text: &str) -> Plan {
    with(&Memory::new([(".gitlab-ci.yml", text)]), &context())
}

fn with(files: &dyn Files, context: &Context) -> Plan {
    match plan(files, context).expect("it is read") {
        Outcome::Pipeline(plan) => plan,
        Outcome::None { reason, .. } => unreachable!("no pipeline: {reason}"),
    }
}

fn refused(text: &str) -> String {
    refused_with(&Memory::new([(".gitlab-ci.yml", text)]), &context())
}

fn refused_with(files: &dyn Files, context: &Context) -> String {
    plan(files, context).expect_err("it is refused").to_string()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.jobs.iter().map(|job| job.name.as_str()).collect()
}

fn job<'p>(plan: &'p Plan, name: &str) -> &'p Job {
    plan.jobs.iter().find(|job| job.name == name).expect(name)
}

fn value(job: &Job, name: &str) -> String {
    job.values(Variables::new(), Variables::new()).expect("no circle").get(name).cloned().unwrap_or_default()
}

#[test]
fn stages_stand_in_their_order_whatever_the_file_says() {
    let plan = of("stages: [[a, b], .post, c]\nlast: {stage: .post, script: x}\none: {stage: c, script: x}\n\
         two: {stage: a, script: x}\nfirst: {stage: .pre, script: x}\n");
    assert_eq!(plan.stages, [".pre", "a", "b", "c", ".post"]);
    assert_eq!(names(&plan), ["first", "two", "one", "last"]);
    assert!(matches!(
        gitlab_ci::plan(&Memory::new([(".gitlab-ci.yml", "x: {stage: .pre, script: x}")]), &context()),
        Ok(Outcome::None { .. })
    ));
}

#[test]
fn every_refusal_names_the_place_and_what_to_do() {
    for (text, wanted) in [
        (
            "a: {script: [x], frob: 1}",
            ".gitlab-ci.yml:1:18: `a.frob`: is no key of a job that is known: correct it, or run with `--ignore frob`",
        ),
        (
            "a: {script: [x]}\nb:\n  stage: nowhere\n  script: x\n",
            ".gitlab-ci.yml:3:10: `b.stage`: the stage `nowhere` is not among the stages: .pre, build, test, deploy, .post",
        ),
        (
            "a: {needs: [b], script: x}\nb: {needs: [c], script: x}\nc: {needs: [a], script: x}",
            "jobs need each other in a circle: a → b → c → a",
        ),
        ("a: {needs: [a], script: x}", "`a` needs itself"),
        ("a: {needs: [b], script: x}", "`b`, which is no job of the file"),
        ("a: {stage: build, needs: [b], script: x}\nb: {script: x}", "which is in the later stage `test`"),
        ("a: {rules: [{when: never}], script: x}\nb: {needs: [a], script: x}", "which is not in this pipeline"),
        ("a: {extends: b}\nb: {extends: a}", "jobs extend each other in a circle: a → b → a"),
        ("a: {extends: .b}", "`a` extends `.b`, which is not in the file"),
        ("a: {stage: test}", "has no `script`"),
        ("a: {script: []}", "the `script` is empty"),
        ("a: {script: [true]}", "single quotes"),
        ("a: {script: [x: y]}", "single quotes"),
        ("a: 1", "neither a setting that is known nor a job"),
        (".a: {script: x}", "the file has no job"),
        ("a: {script: x, rules: []}", "is empty"),
        ("a: {script: x, rules: [{when: on_success}], only: [main]}", "has `rules` and `only`"),
        ("a: {script: x, rules: [{if: '$A = 1'}]}", "not known here"),
        ("a: {script: x, rules: [{iff: $A}]}", "is not a known key"),
        ("a: {script: x, when: sometimes}", "must be `on_success`"),
        ("a: {script: x, when: delayed}", "needs `start_in`"),
        ("a: {script: x, timeout: soon}", "is no time"),
        ("a: {script: x, retry: 3}", "0, 1 or 2"),
        ("a: {script: x, retry: {max: 1, when: never}}", "no kind of failure"),
        ("a: {script: x, parallel: 201}", "from 1 to 200"),
        ("a: {script: x, allow_failure: maybe}", "must be `true`, `false`"),
        ("a: {script: x, release: {tag_name: v1}}", "--ignore release"),
        ("a: {script: x, type: test}", "write `stage`"),
        ("types: [a]\na: {script: x}", "write `stages`"),
        ("a: {script: x, id_tokens: {T: {aud: x}}}", "with `--variable`"),
        ("a: {trigger: other/project}", "--skip-triggers"),
        ("a: {script: x, dependencies: [b]}", "no job of the file"),
        ("a: {script: x, variables: {A: $B, B: $A}}", "circle: A → B → A"),
        ("a: {script: !reference [.b, script]}", "`.b.script` is not in the file"),
        (".b: !reference [.b]\na: {script: x}", "more than 10 deep"),
        ("a: {script: x, cache: [{}, {}, {}, {}, {}]}", "at most 4"),
        ("a: {script: x, cache: {policy: never}}", "pull-push"),
        ("a: {script: x, coverage: 87}", "must be text"),
        ("a: {script: x, artifacts: {reports: {frob: x}}}", "is not a known report"),
        ("workflow: {rules: [{when: manual}]}\na: {script: x}", "no other"),
        ("include: [{local: no.yml}]\na: {script: x}", "there is no file `no.yml`"),
        ("include: ../a.yml", "leaves the repository"),
        ("include: [{project: group/x, file: a.yml}]", "--include-root HOST/PATH=FOLDER"),
        ("include: https://example.com/a.yml", "--include-root"),
        ("include: [{template: Bash.gitlab-ci.yml}]", "--include-root"),
        ("a: [b", "unclosed bracket"),
        ("[]", "must be a mapping"),
        ("a: {script: x}\n---\nb: {script: y}", "further document"),
        ("a: {script: x, parallel: 2}\n'a 1/2': {script: x}", "two jobs are called `a 1/2`"),
        ("a: {script: x, tags: !secret [x]}", "`!secret` is not known"),
        ("variables: {A: {value: x, options: [y]}}\na: {script: x}", "one of its options"),
    ] {
        let told = refused(text);
        assert!(told.starts_with(".gitlab-ci.yml:"), "{text}: {told}");
        assert!(told.contains(wanted), "{text}: {told}");
    }
    let none = refused_with(&Memory::default(), &context());
    assert!(none.contains("there is no file `.gitlab-ci.yml`"), "{none}");
}

#[test]
fn what_only_informs_is_said_once() {
    let plan = of(
        "a: {script: x, interruptible: true, tags: [arch:amd64]}\nb: {script: x, interruptible: true}\nb: {script: y}\n",
    );
    let told: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            ".gitlab-ci.yml:3:1: the key `b` is there twice: this one replaces that of line 2, column 1",
            ".gitlab-ci.yml:1:16: `interruptible`: has no effect on a local run",
            ".gitlab-ci.yml:1:37: `tags`: a local run has no runners to choose from",
        ]
    );
    assert_eq!(job(&plan, "a").tags, ["arch:amd64"]);
}

#[test]
fn what_cannot_be_done_is_in_the_way_only_of_jobs_that_run() {
    let plan = of(
        "a: {script: x}\nb: {rules: [{when: never}], script: x, release: {tag_name: v1}, id_tokens: {T: {aud: x}}}\n\
         c: {rules: [{when: never}], trigger: x/y}\nd: {rules: [{when: never}], needs: [{project: x/y, job: z, ref: m}], script: x}\n",
    );
    assert_eq!(names(&plan), ["a"]);
}

#[test]
fn a_refused_key_can_be_ignored() {
    let files = Memory::new([(
        ".gitlab-ci.yml",
        "a: {script: x, release: {tag_name: v1}, frob: 1, needs: [{project: a/b, job: c, ref: d, artifacts: true}]}",
    )]);
    let ignore = ["release", "frob", "needs:project"].map(str::to_owned).to_vec();
    let plan = with(&files, &Context { ignore, ..context() });
    assert_eq!((plan.notes.len(), job(&plan, "a").needs.clone()), (3, None));
}

#[test]
fn rules_decide_with_the_words_of_rule_and_job() {
    let plan = of("
a: {when: manual, script: x}
b: {when: manual, allow_failure: false, script: x}
c: {rules: [{when: manual}], script: x}
d: {when: manual, rules: [{if: $CI}], script: x}
e: {rules: [{if: $NOPE}, {when: delayed, start_in: 2 minutes, allow_failure: true, variables: {X: rule}}], variables: {X: job}, script: x}
f: {when: on_failure, rules: [{if: $CI}], script: x}
g: {when: delayed, start_in: 1s, script: x}
");
    let shape = |name: &str| {
        let job = job(&plan, name);
        (job.when, job.start, job.allow_failure.clone())
    };
    let seconds = |s| Start::After(std::time::Duration::from_secs(s));
    assert_eq!(shape("a"), (When::OnSuccess, Start::Manual, AllowFailure::Yes));
    assert_eq!(shape("b"), (When::OnSuccess, Start::Manual, AllowFailure::No));
    assert_eq!(shape("c"), (When::OnSuccess, Start::Manual, AllowFailure::No));
    assert_eq!(shape("d"), (When::OnSuccess, Start::Manual, AllowFailure::Yes));
    assert_eq!(shape("e"), (When::OnSuccess, seconds(120), AllowFailure::Yes));
    assert_eq!(shape("f"), (When::OnFailure, Start::Auto, AllowFailure::No));
    assert_eq!(shape("g"), (When::OnSuccess, seconds(1), AllowFailure::No));
    assert_eq!(value(job(&plan, "e"), "X"), "rule");
    assert_eq!(job(&plan, "e").decided_by, "rule 2, line 6");
}

#[test]
fn layers_of_variables_have_their_precedence() {
    let text = "
variables: {A: top, B: top, C: top, D: top, E: top, F: top, N: 010, Y: yes, Z: null, FL: 3.10}
workflow: {rules: [{if: $CI, variables: {B: workflow, C: workflow, D: workflow, E: workflow, F: workflow}}]}
a:
  variables: {C: job, D: job, E: job, F: job}
  parallel: {matrix: [{D: [matrix]}]}
  rules: [{if: '$C == \"job\" && $D == \"matrix\"', variables: {E: rule, F: rule}}]
  script: x
";
    let files = Memory::new([(".gitlab-ci.yml", text)]);
    let context =
        Context { given: given(&[("F", "given")]), project: given(&[("F", "project"), ("G", "project")]), ..context() };
    let plan = with(&files, &context);
    let job = job(&plan, "a: [matrix]");
    let values: Vec<String> =
        ["A", "B", "C", "D", "E", "F", "G", "N", "Y", "Z", "FL"].iter().map(|name| value(job, name)).collect();
    assert_eq!(values, ["top", "workflow", "job", "matrix", "rule", "given", "project", "8", "true", "", "3.1"]);
    let dotenv = given(&[("E", "dotenv"), ("F", "dotenv")]);
    let values = job.values(Variables::new(), dotenv).unwrap();
    assert_eq!((values["E"].as_str(), values["F"].as_str()), ("dotenv", "given"));
}

#[test]
fn extends_merges_deeply_and_null_takes_away() {
    let plan = of("
.base: {stage: build, image: a, script: [base], variables: {A: base, B: base}, cache: {paths: [x]}, artifacts: {paths: [p]}}
.mixin: {variables: {B: mixin, C: mixin}, script: [mixin]}
a: {extends: [.base, .mixin], variables: {C: own}, image: null, cache: {}, artifacts: {exclude: [e]}}
default: {image: d}
");
    let a = job(&plan, "a");
    assert_eq!(
        (a.script.as_slice(), value(a, "A"), value(a, "B"), value(a, "C")),
        (&["mixin".to_owned()][..], "base".into(), "mixin".into(), "own".into())
    );
    assert_eq!(a.image.as_ref().unwrap().name, "d", "null is as if it had never been there");
    assert_eq!(a.cache[0].paths, ["x"], "an empty mapping takes nothing away");
    assert_eq!(a.artifacts.as_ref().unwrap().exclude, ["e"]);
}

#[test]
fn defaults_are_taken_whole_and_can_be_declined() {
    let plan = of("
image: top
before_script: [top]
default: {before_script: [default], retry: 1, timeout: 1h}
variables: {A: x, B: y}
a: {script: x}
b: {before_script: [], script: x}
c: {inherit: {default: false, variables: [A]}, script: x}
d: {inherit: {default: [image], variables: false}, script: x}
");
    let before = |name: &str| job(&plan, name).before_script.clone();
    assert_eq!((before("a"), before("b"), before("c")), (vec!["default".to_owned()], vec![], vec![]));
    let image = |name: &str| job(&plan, name).image.as_ref().map(|image| image.name.clone());
    assert_eq!((image("a"), image("c"), image("d")), (Some("top".to_owned()), None, Some("top".to_owned())));
    assert_eq!(
        (value(job(&plan, "c"), "A"), value(job(&plan, "c"), "B"), value(job(&plan, "d"), "A")),
        ("x".into(), String::new(), String::new())
    );
    assert_eq!((job(&plan, "a").timeout, job(&plan, "a").retry.max), (None, 1));
}

#[test]
fn parallel_jobs_have_exact_names_and_needs_mean_all_of_them() {
    let plan = of("
a: {stage: build, parallel: 2, script: x}
m: {stage: build, parallel: {matrix: [{OS: [linux, mac], V: 3.10}, {OS: bsd, V: [1]}]}, script: x}
all: {needs: [a, m], script: x}
one: {needs: ['a 2/2'], script: x}
some: {needs: [{job: m, parallel: {matrix: [{OS: [linux, bsd], V: [3.10, 1]}]}}], script: x}
");
    assert_eq!(names(&plan)[..5], ["a 1/2", "a 2/2", "m: [linux, 3.1]", "m: [mac, 3.1]", "m: [bsd, 1]"]);
    let needs = |name: &str| job(&plan, name).needs.iter().flatten().map(|need| need.job).collect::<Vec<_>>();
    assert_eq!((needs("all"), needs("one"), needs("some")), (vec![0, 1, 2, 3, 4], vec![1], vec![2, 4]));
    let m = job(&plan, "m: [bsd, 1]");
    assert_eq!(
        (value(m, "OS"), value(m, "CI_NODE_INDEX"), value(m, "CI_NODE_TOTAL")),
        ("bsd".into(), "3".into(), "3".into())
    );
}

#[test]
fn artifacts_come_from_needs_dependencies_or_all_earlier_stages() {
    let plan = of("
stages: [a, b, c]
a1: {stage: a, script: x}
a2: {stage: a, script: x}
b1: {stage: b, script: x}
all: {stage: c, script: x}
some: {stage: c, dependencies: [a2], script: x}
none: {stage: c, dependencies: [], script: x}
needs: {stage: c, needs: [a1, {job: a2, artifacts: false}], script: x}
free: {stage: c, needs: [], script: x}
optional: {stage: c, needs: [{job: gone, optional: true}], script: x}
gone: {stage: a, rules: [{when: never}], script: x}
");
    let takes = |name: &str| job(&plan, name).takes_from.clone();
    assert_eq!(takes("all"), [0, 1, 2]);
    assert_eq!((takes("some"), takes("none"), takes("needs"), takes("free")), (vec![1], vec![], vec![0], vec![]));
    assert_eq!(job(&plan, "optional").needs, Some(vec![]));
    assert!(
        refused("a: {script: x}\nb: {script: x, needs: []}\nc: {needs: [b], dependencies: [a], script: x}")
            .contains("not among the `needs`")
    );
}

#[test]
fn only_and_except_are_what_they_were() {
    let text = "
plain: {script: x}
main: {only: [main], script: x}
regex: {only: ['/^feat/i'], script: x}
tags: {only: [tags], script: x}
branches: {only: {refs: [branches]}, except: [main], script: x}
mr: {only: [merge_requests], script: x}
scheduled: {only: [schedules], script: x}
vars: {only: {variables: [$GO]}, script: x}
changed: {only: {changes: ['src/**/*']}, script: x}
except: {except: {refs: [main], variables: ['$STOP']}, script: x}
mine: {only: [main@group/sub/name], script: x}
other: {only: [main@else/where], script: x}
";
    let mut files = Memory::new([(".gitlab-ci.yml", text)]);
    files.changed = Some(vec!["docs/a".to_owned()]);
    let run = |files: &Memory, reference: Reference, source: &str, variables: &[(&str, &str)]| {
        let context = Context { reference, source: source.to_owned(), given: given(variables), ..context() };
        names(&with(files, &context)).join(" ")
    };
    let branch = |name: &str| Reference::Branch(name.to_owned());
    assert_eq!(run(&files, branch("main"), "push", &[]), "plain main mine");
    assert_eq!(run(&files, branch("Feature"), "push", &[]), "plain regex branches except");
    assert_eq!(run(&files, branch("x"), "push", &[("GO", "1"), ("STOP", "1")]), "plain branches vars");
    assert_eq!(run(&files, Reference::Tag("v1".to_owned()), "push", &[]), "plain tags changed except");
    assert_eq!(run(&files, branch("x"), "schedule", &[]), "plain branches scheduled changed except");
    let merge = Reference::MergeRequest { source: "x".to_owned(), target: "main".to_owned() };
    assert_eq!(run(&files, merge, "merge_request_event", &[]), "mr");
    files.changed = Some(vec!["src/x/y".to_owned()]);
    assert_eq!(run(&files, branch("x"), "push", &[]), "plain branches changed except");
}

#[test]
fn changes_and_exists_look_at_files() {
    let text = "
variables: {DIR: src}
a: {rules: [{changes: ['$DIR/*.c']}], script: x}
b: {rules: [{changes: {paths: [docs/**/*], compare_to: main}}], script: x}
c: {rules: [{exists: ['$DIR/', none]}], script: x}
d: {rules: [{exists: [none]}], script: x}
e: {rules: [{if: $CI, changes: [none]}], script: x}
z: {script: x}
";
    let mut files = Memory::new([(".gitlab-ci.yml", text), ("src/x.c", "")]);
    files.changed = Some(vec!["src/x.c".to_owned()]);
    assert_eq!(names(&with(&files, &context())), ["a", "c", "z"]);
    files.changed = None;
    assert_eq!(names(&with(&files, &context())), ["a", "b", "c", "e", "z"]);
}

#[test]
fn workflow_can_say_no() {
    let none = |text: &str| match plan(&Memory::new([(".gitlab-ci.yml", text)]), &context()) {
        Ok(Outcome::None { reason, .. }) => reason,
        other => unreachable!("{other:?}"),
    };
    let never = "workflow: {rules: [{if: $CI_COMMIT_TAG}, {if: $CI_COMMIT_BRANCH, when: never}, {when: always}]}\na: {script: x}";
    assert_eq!(none(never), "rule 2, line 1 (`$CI_COMMIT_BRANCH`) of `workflow` says `never`");
    assert_eq!(none("workflow: {rules: [{if: $CI_COMMIT_TAG}]}\na: {script: x}"), "no rule of `workflow` matches");
    assert_eq!(none("a: {script: x, only: [tags]}"), "no job is wanted (`a`: `only` does not hold (tags))");
    let named = of("workflow: {name: 'for $CI_COMMIT_BRANCH'}\na: {script: x}");
    assert_eq!(named.name.as_deref(), Some("for main"));
}

#[test]
fn includes_are_merged_in_order_nested_first() {
    let files = Memory::new([
        (
            ".gitlab-ci.yml",
            "include: [/ci/base.yml, {local: 'ci/globs/*.yml'}, {local: ci/if.yml, rules: [{if: $WANT}]}, {local: '$FILE'}]\nvariables: {WHO: main}\nshared: {variables: {B: main}}\n",
        ),
        (
            "ci/base.yml",
            "include: ci/deeper.yml\nvariables: {WHO: base, ALSO: base}\nshared: {script: [base], variables: {A: base, B: base}}\n",
        ),
        ("ci/deeper.yml", "variables: {ALSO: deeper, DEEP: deeper}\n.tool: {before_script: [tool]}\n"),
        ("ci/globs/one.yml", "one: {script: x, extends: .tool}"),
        ("ci/globs/two.yml", "two: {script: !reference [.tool, before_script]}"),
        ("ci/if.yml", "conditional: {script: x}"),
        ("named.yml", "named: {script: x}"),
    ]);
    let context = Context { given: given(&[("FILE", "named.yml")]), ..context() };
    let plan = with(&files, &context);
    assert_eq!(names(&plan), ["shared", "one", "two", "named"]);
    let shared = job(&plan, "shared");
    let values: Vec<String> = ["WHO", "ALSO", "DEEP", "A", "B"].iter().map(|name| value(shared, name)).collect();
    assert_eq!(values, ["main", "base", "deeper", "base", "main"]);
    assert_eq!(job(&plan, "one").before_script, ["tool"]);
    assert_eq!(job(&plan, "two").script, ["tool"]);
    assert_eq!(job(&plan, "one").place.to_string(), "ci/globs/one.yml:1:1");
    let circle =
        refused_with(&Memory::new([(".gitlab-ci.yml", "include: a.yml"), ("a.yml", "include: a.yml")]), &context);
    assert!(circle.contains("deep in each other"), "{circle}");
}

#[test]
fn other_projects_come_from_folders_that_were_named() {
    let mut files = Memory::new([(
        ".gitlab-ci.yml",
        "include:\n  - {project: tools/ci, ref: v1, file: [/a.yml]}\n  - https://example.com/group/x/-/raw/main/dir/b.yml\n  - {component: gitlab.com/tools/ci/comp@1.0, inputs: {job-name: made}}\n  - {template: T.yml}\n",
    )]);
    let ci = Memory::new([
        ("a.yml", "include: /c.yml\na: {script: x}"),
        ("c.yml", "c: {script: x}"),
        (
            "templates/comp.yml",
            "spec: {inputs: {job-name: {default: d}, level: {default: 3, type: number}}}\n---\n$[[ inputs.job-name ]]-job: {script: 'echo $[[ inputs.level ]]', retry: '$[[ inputs.level ]]'}",
        ),
    ]);
    files.elsewhere.insert("gitlab.com/tools/ci".to_owned(), ci);
    files.elsewhere.insert("example.com/group/x".to_owned(), Memory::new([("dir/b.yml", "b: {script: x}")]));
    files.elsewhere.insert("templates".to_owned(), Memory::new([("T.yml", "t: {script: x}")]));
    let told = refused_with(&files, &context());
    assert!(told.starts_with("gitlab.com/tools/ci:templates/comp.yml:3:") && told.contains("0, 1 or 2"), "{told}");
    let ci = Memory::new([
        ("a.yml", "include: /c.yml\na: {script: x}"),
        ("c.yml", "c: {script: x}"),
        ("templates/comp.yml", "spec: {inputs: {job-name: }}\n---\n$[[ inputs.job-name ]]-job: {script: echo}"),
    ]);
    files.elsewhere.insert("gitlab.com/tools/ci".to_owned(), ci);
    let plan = with(&files, &context());
    assert_eq!(names(&plan), ["c", "a", "b", "made-job", "t"]);
}

#[test]
fn inputs_are_checked() {
    let with_inputs = |header: &str, given: &str| {
        let root = format!("include: [{{local: a.yml, inputs: {given}}}]\n");
        let a = format!("spec: {{inputs: {header}}}\n---\na: {{script: ['$[[ inputs.x ]]', \"<$[[ inputs.x ]]>\"]}}\n");
        let files = Memory::new([(".gitlab-ci.yml".to_owned(), root), ("a.yml".to_owned(), a)]);
        plan(&files, &context()).map(|outcome| match outcome {
            Outcome::Pipeline(plan) => plan.jobs[0].script.join(" "),
            Outcome::None { reason, .. } => reason,
        })
    };
    assert_eq!(with_inputs("{x: {default: d}}", "{}").unwrap(), "d <d>");
    assert_eq!(with_inputs("{x: {options: [a, b]}}", "{x: b}").unwrap(), "b <b>");
    for (header, given, words) in [
        ("{x: }", "{}", "has no default"),
        ("{x: }", "{x: a, y: b}", "no input `y`"),
        ("{x: {options: [a]}}", "{x: b}", "one of a"),
        ("{x: {type: number}}", "{x: b}", "of the type number"),
        ("{x: {regex: ^v}}", "{x: b}", "must match"),
        ("{y: {default: 1}}", "{}", "no input `x`"),
    ] {
        let told = with_inputs(header, given).unwrap_err().to_string();
        assert!(told.contains(words), "{header} {given}: {told}");
    }
}

#[test]
fn environments_set_their_variables_and_tell_what_deploys() {
    let plan = of("
review: {environment: {name: review/$CI_COMMIT_REF_SLUG, url: 'https://$CI_ENVIRONMENT_SLUG.x'}, script: x, variables: {V: $CI_ENVIRONMENT_NAME}}
ship: {stage: deploy, environment: production, script: x}
live: {environment: {name: live}, script: x}
stop: {stage: deploy, environment: {name: production, action: stop}, script: x}
tier: {environment: {name: gaia, deployment_tier: production}, script: x}
");
    let review = job(&plan, "review");
    assert_eq!(value(review, "CI_ENVIRONMENT_NAME"), "review/main");
    assert_eq!(value(review, "V"), "review/main");
    assert_eq!(value(review, "CI_ENVIRONMENT_URL"), format!("https://{}.x", value(review, "CI_ENVIRONMENT_SLUG")));
    assert_eq!(value(review, "CI_ENVIRONMENT_TIER"), "development");
    let deploys: Vec<&str> = plan.jobs.iter().filter(|job| job.deploys()).map(|job| job.name.as_str()).collect();
    assert_eq!(deploys, ["live", "tier", "ship"]);
}

#[test]
fn child_pipelines_are_named_by_their_files() {
    let plan = of(
        "a: {trigger: {include: [{local: /a.yml}, b.yml], strategy: depend, forward: {pipeline_variables: true}}}\n",
    );
    let trigger = job(&plan, "a").trigger.clone().unwrap();
    assert_eq!(
        (trigger.files, trigger.waits, trigger.forwards_pipeline_variables),
        (vec!["a.yml".to_owned(), "b.yml".to_owned()], true, true)
    );
    let skipped = Context { skip_triggers: true, ..context() };
    let plan = with(&Memory::new([(".gitlab-ci.yml", "a: {trigger: x/y}")]), &skipped);
    assert!(
        job(&plan, "a").trigger.as_ref().unwrap().files.is_empty() && plan.notes[0].message.contains("--skip-triggers")
    );
}

#[test]
fn predefined_variables_follow_from_how_it_is_started() {
    let files = Memory::new([(".gitlab-ci.yml", "a: {script: x, rules: [{when: always}]}")]);
    let run = |reference: Reference| {
        let plan = with(&files, &Context { reference, ..context() });
        let values = job(&plan, "a").values(Variables::new(), Variables::new()).unwrap();
        [
            "CI_COMMIT_BRANCH",
            "CI_COMMIT_TAG",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
            "CI_COMMIT_REF_SLUG",
            "CI_PROJECT_NAMESPACE",
            "CI_COMMIT_SHORT_SHA",
            "CI_COMMIT_REF_PROTECTED",
        ]
        .map(|name| values.get(name).map_or("-".to_owned(), Clone::clone))
        .join(" ")
    };
    assert_eq!(run(Reference::Branch("main".into())), "main - - main group/sub 01234567 true");
    assert_eq!(run(Reference::Tag("v1.0".into())), "- v1.0 - v1-0 group/sub 01234567 false");
    assert_eq!(
        run(Reference::MergeRequest { source: "F/x".into(), target: "main".into() }),
        "- - main f-x group/sub 01234567 false"
    );
}

proptest::proptest! {
    /// Nothing that is read makes a panic.
    #[test]
    fn any_file_is_planned_or_refused(lines in proptest::collection::vec(
        "(a|b|\\.c|default|include|workflow|stages|variables):( (x|\\[\\]|\\{\\}|\\[a, b\\]|null|yes|3))?|  (script|needs|rules|extends|only|parallel|cache|artifacts|image|when|retry|timeout|environment|stage|variables|trigger|before_script):( (x|a|\\.c|\\[\\]|\\{\\}|\\[a, b\\]|\\[\\{if: \\$A\\}\\]|!reference \\[\\.c, script\\]|\\{matrix: \\[\\{X: \\[1, 2\\]\\}\\]\\}|always|never|2|true))?",
        0..14,
    )) {
        let files = Memory::new([(".gitlab-ci.yml", lines.join("\n"))]);
        let _either = plan(&files, &context());
    }
}
