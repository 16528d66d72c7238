//! Prints every figure the crates promise: `figures [CRATE] [--quick] [--json]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]

use std::process::ExitCode;

use benches::{Row, SUITES, Scale};
use clap::Parser;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// Measures the crates' figures beside their peers and says which bounds hold.
#[derive(Debug, Parser)]
struct Args {
    /// Only this crate's figures.
    #[arg(value_name = "CRATE", value_parser = clap::builder::PossibleValuesParser::new(SUITES.iter().map(|suite| suite.name)))]
    suite: Option<String>,
    /// A tenth of the size, for a look; bounds are promised at full size only.
    #[arg(long)]
    quick: bool,
    /// One JSON array of rows instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        eprintln!("figures: a debug build measures nothing; run with --release");
        return ExitCode::FAILURE;
    }
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let mut rows = Vec::new();
    for suite in SUITES.iter().filter(|suite| args.suite.as_deref().is_none_or(|name| name == suite.name)) {
        eprintln!("figures: measuring {} …", suite.name);
        rows.extend((suite.rows)(scale).into_iter().map(|row| (suite.name, row)));
    }
    if args.json {
        let plain: Vec<_> = rows.iter().map(|(suite, row)| serde_json::json!({ "crate": suite, "row": row })).collect();
        println!("{}", serde_json::Value::Array(plain));
    } else {
        println!("{}", table(&rows));
    }
    ExitCode::SUCCESS
}

fn table(rows: &[(&str, Row)]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["crate", "figure", "value", "unit", "peer", "ratio", "bound", "holds", "note"]);
    for (suite, row) in rows {
        table.add_row([
            (*suite).to_owned(),
            row.name.clone(),
            row.value.map_or_else(|| "–".to_owned(), benches::short),
            row.unit.to_owned(),
            row.peer.clone().unwrap_or_default(),
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            row.bound.clone(),
            match row.holds {
                Some(true) => "yes".to_owned(),
                Some(false) => "NO".to_owned(),
                None => String::new(),
            },
            row.note.clone(),
        ]);
    }
    for column in [2, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
