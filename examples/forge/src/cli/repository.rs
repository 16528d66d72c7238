//! The commands for one repository: delete, rename, fork, its default branch, protected branches, sweeping.

use anyhow::{Result, bail};
use clap::Args;

use super::{NamedArgs, say};

/// A repository to delete.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Yes, delete it: there is no way back but a backup.
    #[arg(long)]
    yes: bool,
}

/// A repository, and the name of another.
#[derive(Debug, Args)]
pub(super) struct NewNameArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// The new name.
    new: String,
}

/// A repository's default branch.
#[derive(Debug, Args)]
pub(super) struct DefaultBranchArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// The branch that it shall be.
    branch: Option<String>,
}

/// A branch to protect.
#[derive(Debug, Args)]
pub(super) struct ProtectArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// The branch.
    branch: Option<String>,
    /// No longer protect it.
    #[arg(long, requires = "branch")]
    off: bool,
}

pub(super) async fn delete(args: DeleteArgs) -> Result<()> {
    let name = args.named.name;
    if !args.yes {
        bail!("{name} would be deleted on every node, for good: say --yes");
    }
    args.named.client.client()?.delete(&name).await?;
    say(&format!("{name} is deleted\n"));
    Ok(())
}

pub(super) async fn rename(args: NewNameArgs) -> Result<()> {
    let client = args.named.client.client()?;
    let now = client.rename(&args.named.name, &args.new).await?;
    say(&format!("{} is now {}/{}.git\n", args.named.name, client.url(), now.name));
    Ok(())
}

pub(super) async fn fork(args: NewNameArgs) -> Result<()> {
    let client = args.named.client.client()?;
    let made = client.fork(&args.named.name, &args.new).await?;
    say(&format!("git clone {}/{}.git\n", client.url(), made.name));
    Ok(())
}

pub(super) async fn default_branch(args: DefaultBranchArgs) -> Result<()> {
    let client = args.named.client.client()?;
    let now = client.default_branch(&args.named.name, args.branch).await?;
    say(&format!("{}\n", now.branch));
    Ok(())
}

pub(super) async fn protect(args: ProtectArgs) -> Result<()> {
    let client = args.named.client.client()?;
    let all = client.protect(&args.named.name, args.branch, !args.off).await?;
    say(&if all.is_empty() { "no branch is protected\n".to_owned() } else { all.join("\n") + "\n" });
    Ok(())
}

pub(super) async fn sweep(args: NamedArgs) -> Result<()> {
    let done = args.client.client()?.sweep(&args.name).await?;
    let mut failed = 0;
    for (node, swept) in &done.nodes {
        match swept {
            Ok(swept) => {
                let freed = swept.bytes_before.saturating_sub(swept.bytes);
                say(&format!("node {node}: {freed} bytes freed, {} are left\n", swept.bytes));
            }
            Err(why) => {
                failed += 1;
                say(&format!("node {node}: not swept: {why}\n"));
            }
        }
    }
    if failed == 0 { Ok(()) } else { bail!("not swept on {failed} nodes") }
}
