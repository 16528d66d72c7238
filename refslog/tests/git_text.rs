//! Git's text formats by themselves, without a Git: what is read, what is refused, what is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use common::{config, name, oid, refs_of, symbolic};
use tenon_refslog::git::{
    ListingError, PackedRefsError, ParseErrorKind, UnreadReason, parse_for_each_ref, parse_packed_refs,
    parse_update_ref, write_packed_refs, write_transaction,
};
use tenon_refslog::{
    ChecksumKey, Command, Config, Deref, LineageId, ObjectFormat, ObjectId, Old, Peel, RefName, Refs, Snapshot, Taken,
    Target, Transaction, Value, Version,
};

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
    assert_eq!(other.to_string(), "Git printed while it listed refs: warning: something else");
}

fn header(refs: &Refs) -> String {
    let text = write_packed_refs(refs.iter()).unwrap();
    String::from_utf8(text).unwrap().lines().next().unwrap().to_owned()
}

/// What the header of `packed-refs` claims holds for every entry, also after a push of which nobody knows what it brought.
#[test]
fn packed_refs_claim_what_is_known() {
    const ALL: &str = "# pack-refs with: peeled fully-peeled sorted ";
    let tag = name("refs/tags/v1");
    let listing = format!("{}   refs/heads/a\n{} {}  refs/tags/v0\n", oid(1), oid(2), oid(1));
    let entries = parse_for_each_ref(listing.as_bytes(), b"", config().format()).unwrap();
    let mut refs = Refs::from_entries(config(), LineageId(1), Version(1), entries).unwrap();
    assert_eq!(header(&refs), ALL, "Git told of each");
    assert_eq!(header(&Refs::new(config(), LineageId(1))), ALL, "of none, everything is known: as Git writes it");
    let push = |refs: &mut Refs, name: &RefName, id: ObjectId| {
        let record = refs.admit(&Command::push(None, Some(id), name.clone()).into()).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
    };
    push(&mut refs, &name("refs/heads/b"), oid(3));
    assert_eq!(header(&refs), "# pack-refs with: peeled sorted ", "the tags are known");
    push(&mut refs, &tag, oid(4));
    assert_eq!(header(&refs), "# pack-refs with: sorted ");
    let text = write_packed_refs(refs.iter()).unwrap();
    let read = parse_packed_refs(&text, config().format()).unwrap();
    let unknown = |(name, value): &(RefName, Value)| match value {
        Value::Direct(target) if target.peel() == Peel::Unknown => Some(name.to_string()),
        Value::Direct(_) | Value::Symbolic(_) => None,
    };
    assert_eq!(read.iter().filter_map(unknown).count(), 3, "without a claim, all but what has a peeled id");
    // It is told later; late and unknown words change nothing, and nothing of it counts for equality.
    let (point, other) = (refs.point(), oid(9));
    assert_eq!(refs.handle_peeled(&tag, other, Some(oid(5))), Ok(Taken::Unchanged), "it holds another object");
    assert_eq!(refs.handle_peeled(&name("refs/tags/none"), oid(4), None), Ok(Taken::Unchanged));
    assert!(refs.handle_peeled(&tag, oid(4), Some(ObjectId::from_bytes(&[1; 32]).unwrap())).is_err());
    assert_eq!(refs.handle_peeled(&tag, oid(4), Some(oid(5))), Ok(Taken::Taken));
    assert_eq!(refs.handle_peeled(&tag, oid(4), Some(oid(5))), Ok(Taken::Unchanged));
    assert_eq!(refs.handle_peeled(&name("refs/heads/b"), oid(3), None), Ok(Taken::Taken));
    assert_eq!((header(&refs).as_str(), refs.point()), (ALL, point));
    let lines = String::from_utf8(write_packed_refs(refs.iter()).unwrap()).unwrap();
    assert!(lines.contains(&format!("{} refs/tags/v1\n^{}\n", oid(4), oid(5))), "{lines}");
    // What is known of all is kept in a snapshot.
    let opened = Snapshot::open(refs.snapshot().as_bytes().clone()).unwrap();
    let restored = Refs::restore(config(), &opened).unwrap();
    assert_eq!(header(&restored), ALL);
    let peel = |value: Option<Value>| {
        value.and_then(|value| if let Value::Direct(target) = value { Some(target.peel()) } else { None })
    };
    assert_eq!(peel(opened.get(&name("refs/heads/a")).unwrap()), Some(Peel::NotATag));
    assert_eq!(peel(restored.get(&tag)), Some(Peel::To(oid(5))));
}

/// Whatever order refs come in, the file is sorted as it says; what stands twice is refused, what is no file's is left out.
#[test]
fn packed_refs_are_sorted_or_refused() {
    let refs = refs_of(&[
        ("HEAD", symbolic("refs/heads/b")),
        ("refs/heads/b", oid(1).into()),
        ("refs/heads/a", oid(2).into()),
    ]);
    let mut entries: Vec<(RefName, Value)> = refs.iter().collect();
    let text = write_packed_refs(entries.clone()).unwrap();
    entries.reverse();
    entries.push((name("HEAD"), Target::from(oid(3)).into()));
    assert_eq!(write_packed_refs(entries.clone()).unwrap(), text);
    let names: Vec<_> =
        parse_packed_refs(&text, config().format()).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [name("refs/heads/a"), name("refs/heads/b")]);
    entries.push((name("refs/heads/a"), oid(3).into()));
    assert_eq!(write_packed_refs(entries), Err(PackedRefsError::Duplicate { name: name("refs/heads/a") }));
}

/// A key of its own makes no difference to what a log is told by a listing.
#[test]
fn a_record_leads_to_what_git_lists() {
    let mut refs = refs_of(&[("refs/heads/x", oid(1).into()), ("refs/heads/main", oid(1).into())]);
    // A push of `:x main:x/y`, which Git has taken.
    let wanted = [(name("refs/heads/main"), Value::from(oid(1))), (name("refs/heads/x/y"), oid(1).into())];
    let refused: Transaction =
        [Command::delete(name("refs/heads/x")), Command::create(name("refs/heads/x/y"), oid(1))].into_iter().collect();
    assert!(refs.admit(&refused).is_err(), "by the rules for one transaction");
    let other_key = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([9; 32])).build().unwrap();
    let listed = Refs::from_entries(other_key, LineageId(7), Version(99), wanted.clone()).unwrap();
    let record = refs.record_to(&listed).unwrap().unwrap();
    assert_eq!((record.version(), record.changes().len()), (Version(2), 2));
    let _ = refs.apply(&record).unwrap();
    assert!(refs.iter().eq(wanted) && refs.record_to(&listed).unwrap().is_none());
    let wide = Config::builder(ObjectFormat::Sha256, ChecksumKey::new([9; 32])).build().unwrap();
    let entry = [(name("refs/heads/a"), ObjectId::from_bytes(&[1; 32]).unwrap().into())];
    let wide = Refs::from_entries(wide, LineageId(7), Version(1), entry).unwrap();
    assert!(refs.record_to(&wide).is_err());
}
