//! Admission as tables: given these refs, when a transaction comes, then these changes or that refusal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{LINEAGE, config, empty, id, key, name, oid, open_config, refs_of, symbolic};
use tenon_refslog::{
    Change, Command, Config, DfPolicy, HeadDeletion, ObjectFormat, ObjectId, Old, Reason, Record, RefName, Refs,
    Transaction, Value, Verdict, Version,
};

/// What a table says: `main` is `refs/heads/main`, `3` an id, `@main` a symbolic value.
fn full(short: &str) -> RefName {
    if short.starts_with("refs/") || short.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
        name(short)
    } else {
        name(&format!("refs/heads/{short}"))
    }
}

fn value(text: &str) -> Value {
    match text.strip_prefix('@') {
        Some(target) => Value::Symbolic(full(target)),
        None => id(text.parse().unwrap()),
    }
}

fn old(text: Option<&str>) -> Old {
    match text {
        None => Old::Any,
        Some("-") => Old::Absent,
        Some(text) => Old::Is(value(text)),
    }
}

fn command(text: &str) -> Command {
    let mut words = text.split_whitespace();
    let verb = words.next().unwrap();
    let target = full(words.next().unwrap());
    let (verb, no_deref) = verb.strip_suffix('!').map_or((verb, false), |verb| (verb, true));
    let command = match verb {
        "create" => Command::create(target, value(words.next().unwrap())),
        "update" => Command::update(target, value(words.next().unwrap())).expecting(old(words.next())),
        "delete" => Command::delete(target).expecting(old(words.next())),
        "verify" => Command::verify(target, old(words.next())),
        other => panic!("no verb {other}"),
    };
    assert_eq!(words.next(), None, "{text}");
    if no_deref { command.no_deref() } else { command }
}

fn given(config: Config, text: &str) -> Refs {
    let entries = text.split_whitespace().map(|entry| {
        let (target, holds) = entry.split_once('=').unwrap();
        (full(target), value(holds))
    });
    Refs::from_entries(config, LINEAGE, Version(7), entries).unwrap()
}

fn shown(verdict: Result<tenon_refslog::Admitted, tenon_refslog::Refused>) -> String {
    let holds = |value: Option<&Value>| value.map_or("-".to_owned(), ToString::to_string);
    match verdict {
        Ok(admitted) => {
            let changes = admitted.record().map_or(&[][..], Record::changes);
            let show = |change: &Change| {
                format!("{}:{}>{}", change.name(), holds(change.old().value()), holds(change.new_value()))
            };
            changes.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Err(refused) => {
            let show = |(at, reason): (usize, &Reason)| format!("{at}#{}", reason.code());
            format!("refused {}", refused.reasons().map(show).collect::<Vec<_>>().join(" "))
        }
    }
}

/// The `then` column in the words of `shown`.
fn expected(text: &str) -> String {
    if text.starts_with("refused") {
        return text.to_owned();
    }
    let holds = |text: &str| if text == "-" { text.to_owned() } else { value(text).to_string() };
    let change = |text: &str| {
        let (target, values) = text.split_once(':').unwrap();
        let (before, after) = values.split_once('>').unwrap();
        format!("{}:{}>{}", full(target), holds(before), holds(after))
    };
    text.split_whitespace().map(change).collect::<Vec<_>>().join(" ")
}

fn check(config: &Config, table: &[(&str, &str, &str, &str)]) {
    for (title, before, when, then) in table {
        let refs = given(config.clone(), before);
        let transaction: Transaction = when.split(';').map(|text| command(text.trim())).collect();
        assert_eq!(shown(refs.admit(&transaction)), expected(then), "{title}");
    }
}

#[test]
fn admission_as_git_does_it() {
    check(
        &config(),
        &[
            // title, given, when, then (changes, or command#reason code)
            ("create", "", "create main 1", "main:->1"),
            ("create what exists", "main=1", "create main 2", "refused 0#8"),
            ("create what exists alike", "main=1", "create main 1", "refused 0#8"),
            ("update in any case", "main=1", "update main 2", "main:1>2"),
            ("update makes what is missing", "", "update main 2", "main:->2"),
            ("compare and set", "main=1", "update main 2 1", "main:1>2"),
            ("compare and set, stale", "main=3", "update main 2 1", "refused 0#10"),
            ("compare and set, missing", "", "update main 2 1", "refused 0#9"),
            ("a no-op makes no record", "main=1", "update main 1 1", ""),
            ("delete", "main=1", "delete main", "main:1>-"),
            ("delete with old value", "main=1", "delete main 1", "main:1>-"),
            ("delete with stale old value", "main=1", "delete main 2", "refused 0#10"),
            ("delete of a missing one is a no-op", "", "delete main", ""),
            ("delete of a missing one with old value", "", "delete main 1", "refused 0#9"),
            ("verify", "main=1", "verify main 1", ""),
            ("verify fails", "main=1", "verify main 2", "refused 0#10"),
            ("verify absence", "", "verify main", ""),
            ("verify absence of what exists", "main=1", "verify main", "refused 0#8"),
            ("several, one stale: none moves", "a=1 b=2", "update a 3 1; update b 3 1; create c 4", "refused 1#10"),
            ("several", "a=1 b=2", "delete b 2; update a 3 1; create c 4", "a:1>3 b:2>- c:->4"),
            ("a ref twice", "a=1", "update a 2; update a 3", "refused 0#7 1#7"),
            ("a ref twice, both alike", "a=1", "update a 2; verify a 1", "refused 0#7 1#7"),
        ],
    );
}

#[test]
fn symbolic_refs_are_resolved_at_admission() {
    check(
        &config(),
        &[
            ("through HEAD", "HEAD=@main main=1", "update HEAD 2 1", "main:1>2"),
            ("through an unborn HEAD", "HEAD=@main", "create HEAD 1", "main:->1"),
            ("delete through HEAD", "HEAD=@main main=1", "delete HEAD", "main:1>-"),
            ("HEAD itself", "HEAD=@main main=1", "update HEAD @dev", "HEAD:@main>@dev"),
            ("HEAD itself, as expected", "HEAD=@main", "update HEAD @dev @main", "HEAD:@main>@dev"),
            ("HEAD itself, not as expected", "HEAD=@main", "update HEAD @dev @x", "refused 0#10"),
            ("HEAD is not deleted", "HEAD=@main main=1", "delete! HEAD", "refused 0#14"),
            ("HEAD detached", "HEAD=@main main=1", "update! HEAD 2 1", "HEAD:@main>2"),
            ("twice, once through HEAD", "HEAD=@main main=1", "update HEAD 2; update main 3", "refused 0#7 1#7"),
            (
                "HEAD beside the branch that it names",
                "HEAD=@main main=1",
                "update HEAD @x; update main 3",
                "refused 0#7 1#7",
            ),
            ("HEAD beside another branch", "HEAD=@main x=1", "update HEAD @x; update x 3", "HEAD:@main>@x x:1>3"),
            ("a chain", "a=@b b=@c c=1", "update a 2", "c:1>2"),
            ("a loop", "a=@b b=@a", "update a 2", "refused 0#13"),
            ("a loop is undone", "a=@b b=@a", "delete! a; update! b 1", "a:@b>- b:@a>1"),
            ("a chain too long", "a=@b b=@c c=@d d=@e e=@f f=1", "update a 2", "refused 0#13"),
            // A command on the symbolic ref itself reads what its target leads to: as far as Git reads, from there.
            ("the head of a chain", "a=@b b=@c c=@d d=@e e=@f f=1", "update! a 2 1", "a:@b>2"),
            ("of one too long", "a=@b b=@c c=@d d=@e e=@f f=@g g=1", "update! a 2 1", "refused 0#13"),
            ("of one too long, whatever it holds", "a=@b b=@c c=@d d=@e e=@f f=@g g=1", "update! a 2", "a:@b>2"),
            ("a new symbolic ref", "", "create s @main", "s:->@main"),
            ("D/F on the target", "s=@x/y x=1", "create s 1", "refused 0#11"),
        ],
    );
}

const CONFLICTS: [(&str, &str, &str, &str); 12] = [
    ("below a ref", "a=1", "create a/b 2", "refused 0#11"),
    ("above a ref", "a/b=1", "create a 2", "refused 0#11"),
    ("far below", "a=1", "create a/b/c/d 2", "refused 0#11"),
    ("far above", "a/b/c/d=1", "create a 2", "refused 0#11"),
    ("neighbours in the order of names do not hide it", "a=1 a-b=1 a.b=1", "create a/c 2", "refused 0#11"),
    ("nor on the other side", "a-b=1 a.b=1 a/c=1", "create a 2", "refused 0#11"),
    ("what only looks like it", "a-b=1 a.b=1 a0=1 ab=1", "create a 2", "a:->2"),
    ("two new ones", "", "create a 1; create a/b 2", "refused 0#12 1#12"),
    ("an update of what exists", "a=1 x/y=1", "update a 2; update x/y 2", "a:1>2 x/y:1>2"),
    ("a missing one below a ref, deleted", "a=1", "delete a/b", "refused 0#11"),
    ("a missing one below a ref, verified", "a=1", "verify a/b", "refused 0#11"),
    ("make way in one transaction", "a=1", "delete a; create a/b 2", "refused 1#11"),
];

#[test]
fn directory_file_conflicts_as_in_git() {
    check(&config(), &CONFLICTS);
}

#[test]
fn directory_file_conflicts_in_the_final_state_only() {
    let config = Config::builder(ObjectFormat::Sha1, key()).df(DfPolicy::FinalState).build().unwrap();
    check(&config, &CONFLICTS[..9]);
    check(
        &config,
        &[
            ("a missing one below a ref, deleted", "a=1", "delete a/b", ""),
            ("make way in one transaction", "a=1", "delete a; create a/b 2", "a:1>- a/b:->2"),
            ("make way upwards", "a/b=1 a/c=1", "delete a/b; delete a/c; create a 2", "a:->2 a/b:1>- a/c:1>-"),
            ("half a way", "a/b=1 a/c=1", "delete a/b; create a 2", "refused 1#11"),
        ],
    );
}

/// That no parent of `foo-b` is a ref says nothing of `foo`, however many bytes `foo/x` shares with it.
#[test]
fn a_neighbour_does_not_vouch_for_a_directory() {
    let refs = Refs::from_entries(open_config(), LINEAGE, Version(1), [(name("refs/foo"), id(1))]).unwrap();
    let both: Transaction =
        ["refs/foo-b", "refs/foo/x"].map(|new| Command::create(name(new), oid(2))).into_iter().collect();
    assert_eq!(shown(refs.admit(&both)), "refused 1#11");
}

#[test]
fn names_that_are_not_served() {
    check(
        &config(),
        &[
            ("a root ref", "", "create ORIG_HEAD 1", "refused 0#3"),
            ("a pseudo ref", "", "create FETCH_HEAD 1", "refused 0#4"),
            ("another pseudo ref, deleted", "", "delete MERGE_HEAD", "refused 0#4"),
            ("a worktree's", "", "create refs/bisect/bad 1", "refused 0#5"),
            ("another worktree's", "", "create refs/worktree/x 1", "refused 0#5"),
        ],
    );
    check(
        &open_config(),
        &[
            ("a root ref where they are served", "", "create ORIG_HEAD 1", "ORIG_HEAD:->1"),
            ("a pseudo ref all the same", "", "create FETCH_HEAD 1", "refused 0#4"),
        ],
    );
    let allowing = Config::builder(ObjectFormat::Sha1, key()).head_deletion(HeadDeletion::Allow).build().unwrap();
    check(&allowing, &[("HEAD deleted where that is allowed", "HEAD=@main", "delete! HEAD", "HEAD:@main>-")]);
}

/// What may not be touched by its name may not be touched through a symbolic ref either, nor be named by one.
#[test]
fn a_symbolic_ref_leads_round_no_policy() {
    let wide = "n".repeat(251);
    let long = vec!["n"; 2_506].join("/");
    for (target, code) in [
        ("FETCH_HEAD", 4),
        ("MERGE_HEAD", 4),
        ("ORIG_HEAD", 3),
        ("lower", 3),
        ("foo/bar", 3),
        ("refs/bisect/bad", 5),
        ("worktrees/w/HEAD", 5),
        (&format!("refs/heads/{wide}"), 17),
        (&format!("refs/{long}"), 2),
    ] {
        let target = name(target);
        let through = name("refs/heads/through");
        let held = Value::Symbolic(target.clone());
        let refs = Refs::from_entries(config(), LINEAGE, Version(1), [(through.clone(), held.clone())]).unwrap();
        let fresh = empty();
        for (refs, command) in [
            (&fresh, Command::create(target.clone(), oid(1))),
            (&fresh, Command::create(through.clone(), held.clone())),
            (&fresh, Command::create(name("HEAD"), held.clone())),
            (&refs, Command::update(through.clone(), oid(1))),
            (&refs, Command::create(through.clone(), symbolic("refs/heads/x")).follow()),
        ] {
            let shown = shown(refs.admit(&command.clone().into()));
            let expected = format!("refused 0#{code}");
            assert_eq!(shown, expected, "{target}: {command:?}");
        }
        // The symbolic ref itself can be got rid of.
        assert!(refs.admit(&Command::delete(through).no_deref().into()).is_ok());
    }
    // The widest that goes.
    let widest = name(&format!("refs/heads/{}", "n".repeat(250)));
    assert!(empty().admit(&Command::create(widest, oid(1)).into()).is_ok());
}

/// Git takes a folder whose `HEAD` names nothing below `refs/` for no repository.
#[test]
fn head_names_a_ref_below_refs() {
    for (config, code) in [(config(), 3), (open_config(), 3)] {
        check(&config, &[("HEAD to itself", "HEAD=@main", "update HEAD @HEAD", "refused 0#16")]);
        let to_main = Command::update(name("HEAD"), symbolic("main"));
        assert_eq!(shown(empty().admit(&to_main.into())), format!("refused 0#{code}"));
    }
    let to_root = Command::update(name("HEAD"), symbolic("ORIG_HEAD"));
    let refs = Refs::new(open_config(), LINEAGE);
    assert_eq!(shown(refs.admit(&to_root.clone().into())), "refused 0#16");
    // Nor through another symbolic ref.
    let refs = Refs::from_entries(open_config(), LINEAGE, Version(1), [(name("refs/x"), symbolic("HEAD"))]).unwrap();
    let through = Command::update(name("refs/x"), symbolic("ORIG_HEAD")).follow();
    assert_eq!(shown(refs.admit(&through.into())), "refused 0#16");
}

/// What Git makes and then cannot delete is neither made nor deleted.
#[test]
fn root_refs_are_those_that_git_makes_and_deletes() {
    let refs = Refs::new(open_config(), LINEAGE);
    for outside in ["foo/bar", "lower", "Mixed_HEAD", "config", "objects/x"] {
        let name = name(outside);
        for command in [
            Command::create(name.clone(), oid(1)),
            Command::delete(name.clone()),
            Command::verify(name.clone(), Old::Any),
        ] {
            assert_eq!(shown(refs.admit(&command.into())), "refused 0#3", "{name}");
        }
    }
    for root in ["ORIG_HEAD", "FOO"] {
        assert!(refs.admit(&Command::create(name(root), oid(1)).into()).is_ok());
    }
}

#[test]
fn a_broken_name_can_be_deleted_and_not_made() {
    let broken = RefName::broken("refs/heads/a..b.lock").unwrap();
    assert!(!broken.is_well_formed());
    let refs = Refs::from_entries(config(), LINEAGE, Version(1), [(broken.clone(), id(1))]).unwrap();
    let update = refs.admit(&Command::update(broken.clone(), oid(2)).into()).unwrap_err();
    assert_eq!(update.reasons().next().unwrap().1.code(), 1);
    let delete = refs.admit(&Command::delete(broken).into()).unwrap();
    assert_eq!(delete.record().unwrap().changes().len(), 1);
}

#[test]
fn names_that_cannot_even_be_represented() {
    for unsafe_name in ["", "refs/../x", "refs/heads/./x", "refs//x", "refs/x/", "x/../refs/y", "lower case"] {
        assert!(RefName::broken(unsafe_name).is_err(), "{unsafe_name}");
    }
}

#[test]
fn limits_are_reasons_too() {
    let tight = Config::builder(ObjectFormat::Sha1, key()).max_commands(1).max_name_len(12).build().unwrap();
    let refs = Refs::new(tight, LINEAGE);
    let two: Transaction = ["create a 1", "create b 1"].into_iter().map(command).collect();
    assert_eq!(shown(refs.admit(&two)), "refused 0#15 1#15");
    assert_eq!(shown(refs.admit(&command("create long 1").into())), "refused 0#2");
    assert!(Config::builder(ObjectFormat::Sha1, key()).max_commands(0).build().is_err());
    assert!(Config::builder(ObjectFormat::Sha1, key()).max_name_len(70_000).build().is_err());
    assert!(Config::builder(ObjectFormat::Sha1, key()).max_component_len(0).build().is_err());
}

#[test]
fn formats_are_never_mixed() {
    let sha256 = ObjectId::from_bytes(&[9; 32]).unwrap();
    let refused = empty().admit(&Command::create(name("refs/heads/a"), sha256).into()).unwrap_err();
    assert_eq!(refused.reasons().next().unwrap().1, &Reason::ObjectFormat { want: ObjectFormat::Sha1 });
    let entries = [(name("refs/heads/a"), Value::from(sha256))];
    assert!(Refs::from_entries(config(), LINEAGE, Version(1), entries).is_err());
}

#[test]
fn verdicts_say_what_each_command_does() {
    let refs = refs_of(&[("refs/heads/a", id(1)), ("refs/heads/b", id(1))]);
    let commands = ["update a 2 1", "update b 1", "verify a/x"].into_iter().map(command);
    let refused = refs.admit(&commands.collect()).unwrap_err();
    assert_eq!(refused.verdicts()[..2], [Verdict::Changes, Verdict::Unchanged]);
    assert!(refused.verdicts()[2].reason().is_some());
    let told = refused.to_string();
    assert_eq!(told, "command 2: conflicts with 'refs/heads/a', which exists");
}
