//! Git's text formats by themselves, without a Git: what is read, what is refused, what is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use common::{config, name, oid, symbolic};
use tenon_refslog::git::{
    ListingError, ParseErrorKind, UnreadReason, parse_for_each_ref, parse_update_ref, write_transaction,
};
use tenon_refslog::{Command, Deref, Old, Transaction};

/// Fields with a zero behind each.
fn stream(fields: &[&str]) -> Vec<u8> {
    fields.iter().flat_map(|field| [field.as_bytes(), b"\0"].concat()).collect()
}

/// A stream in which `;` stands between fields and `ID` for an id, and what it reads as: commands, or why it is refused.
fn read(text: &str) -> Result<Transaction, ParseErrorKind> {
    let id = oid(1).to_hex();
    let fields: Vec<&str> = text.split(';').map(|field| if field == "ID" { &*id } else { field }).collect();
    parse_update_ref(&stream(&fields), config().format()).map_err(|error| error.kind().clone())
}

/// What Git commits is a transaction; what it aborts, or dies of, is an error.
#[test]
fn a_stream_is_what_git_makes_of_it() {
    use ParseErrorKind::{Fields, OutOfPlace, Unfinished};
    let create = "create refs/heads/a;ID";
    for (text, expected) in [
        (create.to_owned(), Ok(1)),
        (format!("{create};commit"), Ok(1)),
        (format!("start;{create};commit"), Ok(1)),
        (format!("start;{create};prepare;commit"), Ok(1)),
        (format!("{create};prepare;commit"), Ok(1)),
        (format!("{create};start;create refs/heads/b;ID;commit"), Ok(2)),
        (format!("start;{create}"), Err(Unfinished)),
        (format!("start;{create};prepare"), Err(Unfinished)),
        (format!("{create};prepare"), Err(Unfinished)),
        (format!("{create};start"), Err(Unfinished)),
        ("start".to_owned(), Err(Unfinished)),
        (format!("start;{create};abort"), Err(OutOfPlace)),
        (format!("start;start;{create};commit"), Err(OutOfPlace)),
        (format!("start;prepare;{create};commit"), Err(OutOfPlace)),
        ("start;prepare;option no-deref;commit".to_owned(), Err(OutOfPlace)),
        (format!("start;prepare;prepare;{create};commit"), Err(OutOfPlace)),
        ("start;prepare;start;commit".to_owned(), Err(OutOfPlace)),
        (format!("start;commit;{create}"), Err(OutOfPlace)),
        ("start;commit;start;commit".to_owned(), Err(OutOfPlace)),
        ("commit;commit".to_owned(), Err(OutOfPlace)),
        ("start now".to_owned(), Err(OutOfPlace)),
        ("update refs/heads/a;ID".to_owned(), Err(Fields)),
        // The one command that Git takes without its last fields, at the end.
        ("symref-update refs/heads/s;refs/heads/a".to_owned(), Ok(1)),
        ("symref-update refs/heads/s;refs/heads/a;".to_owned(), Ok(1)),
        ("symref-update refs/heads/s;refs/heads/a;ref".to_owned(), Err(Fields)),
    ] {
        assert_eq!(read(&text).map(|it| it.commands().len()), expected, "{text}");
    }
}

/// Wherever a stream that begins a transaction is cut, it is refused, and the whole of it is not.
#[test]
fn a_cut_stream_is_refused_wherever_it_is_cut() {
    let id = oid(1).to_hex();
    let text = stream(&["start", "create refs/heads/a", &id, "update refs/heads/b", &id, "", "prepare", "commit"]);
    assert_eq!(parse_update_ref(&text, config().format()).unwrap().commands().len(), 2);
    for len in 1..text.len() {
        assert!(parse_update_ref(&text[..len], config().format()).is_err(), "cut at {len}");
    }
}

/// An option counts for the next command, whatever stands between the two that is none.
#[test]
fn an_option_waits_for_its_command() {
    let read = read("option no-deref;start;update refs/heads/a;ID;;update refs/heads/b;ID;;commit").unwrap();
    assert_eq!(read.commands().iter().map(Command::deref).collect::<Vec<_>>(), [Deref::Never, Deref::Follow]);
}

/// "Detach `HEAD` if it names `main`" has no words in Git: written without the condition it would be another command.
#[test]
fn an_expectation_is_written_or_refused() {
    let head = name("HEAD");
    let expected = Old::Is(symbolic("refs/heads/main"));
    let fine = Command::update(name("refs/heads/a"), oid(1));
    let detach = Command::update(head.clone(), oid(1)).expecting(expected.clone()).no_deref();
    let both: Transaction = [fine, detach].into_iter().collect();
    let refused = write_transaction(&both, config().format()).unwrap_err();
    assert_eq!((refused.at, &refused.name), (1, &head));
    for command in [
        Command::update(head.clone(), symbolic("refs/heads/x")).expecting(expected.clone()),
        Command::delete(head.clone()).expecting(expected.clone()).no_deref(),
        Command::verify(head, expected).no_deref(),
    ] {
        let text = write_transaction(&command.clone().into(), config().format()).unwrap();
        assert_eq!(parse_update_ref(&text, config().format()).unwrap().commands(), [command]);
    }
}

#[test]
fn a_listing_is_whole_or_none() {
    let line = format!("{}   refs/heads/a\n", oid(1));
    let listed = |errors: &[u8]| parse_for_each_ref(line.as_bytes(), errors, config().format());
    assert_eq!(listed(b"").unwrap().len(), 1);
    let two = b"warning: ignoring broken ref refs/heads/b\nwarning: ignoring ref with broken name refs/heads/c..d\n";
    let error = listed(two).unwrap_err();
    let told = "Git cannot read 'refs/heads/b': it is damaged; nor 1 more";
    assert_eq!(error.to_string(), told);
    let ListingError::Unread { first, rest } = error else { panic!("{told}") };
    assert_eq!((first.name.as_slice(), first.reason), (&b"refs/heads/b"[..], UnreadReason::Broken));
    assert_eq!((rest[0].name.as_slice(), rest[0].reason), (&b"refs/heads/c..d"[..], UnreadReason::BadName));
    let other = listed(b"warning: something else\n").unwrap_err();
    assert_eq!(other.to_string(), "Git said while it listed refs: warning: something else");
}
