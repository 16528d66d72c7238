//! `tenon-refslog` in a minute: ask whether a push may happen, append its record, replay it elsewhere.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;

use tenon_refslog::{
    ChecksumKey, Command, Config, LineageId, Mode, ObjectFormat, ObjectId, Record, RefName, Refs, Transaction, Value,
    compact, git,
};

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    let mut writer = Refs::new(config.clone(), LineageId(1));
    let mut replica = writer.clone();
    let mut log: Vec<Record> = Vec::new();
    let id = |digit: &str| ObjectId::from_hex(digit.repeat(40));
    let main = RefName::new("refs/heads/main")?;
    let moved = |old, new| Ok::<_, Box<dyn Error>>(Command::push(Some(id(old)?), Some(id(new)?), main.clone()));

    let pushes = [
        (
            "create HEAD and main",
            vec![
                Command::create(RefName::new("HEAD")?, Value::Symbolic(main.clone())),
                Command::create(main.clone(), id("a")?),
            ],
        ),
        ("main: a to e", vec![moved("a", "e")?]),
        ("main: a to b, too late", vec![moved("a", "b")?]),
        ("main/next beside main", vec![Command::create(RefName::new("refs/heads/main/next")?, id("c")?)]),
        ("main: e to f", vec![moved("e", "f")?]),
    ];
    for (title, commands) in pushes {
        // Ask; do: append the record durably; tell.
        match writer.admit(&Transaction::from_iter(commands)) {
            Ok(admitted) => {
                let Some(record) = admitted.into_record() else { continue };
                println!("{title:24} version {}, {} bytes", record.version(), record.encode().len());
                let _ = writer.apply(&record)?;
                log.push(record);
            }
            Err(refused) => println!("{title:24} refused: {refused}"),
        }
    }

    let segment = compact(replica.point(), Mode::Cover, &log)?;
    println!("\n{} records fold into {} changes, which Git would be told as", log.len(), segment.changes().len());
    for text in git::write_changes(&replica.pending(&segment)?, ObjectFormat::Sha1) {
        println!("  {}", String::from_utf8_lossy(&text).replace('\0', " "));
    }
    println!("\nreplica: {:?}, version {}", replica.replay(&segment)?, replica.version());
    println!("writer and replica hold equal refs: {}", writer.checksum() == replica.checksum());
    Ok(())
}
