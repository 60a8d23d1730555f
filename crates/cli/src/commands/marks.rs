//! `fief marks`: who uses which of the 32 bits, by what is known (this file) and by what this host does
//! (`live`); and where fief's own are (`field`).

mod field;
mod live;

use std::process::ExitCode;

use anyhow::Context as _;
use fief_api::MoveRequest;
use fief_marks::MarkLayout;
use fief_marks::collide::{Collision, collisions, room};
use fief_marks::drawing;
use fief_marks::reading::{decode, who};
use fief_marks::registry::{Bits, Mark, Registry, Software, Use};

use crate::args::{MarksArgs, MarksCommand};
use crate::context::Context;
use crate::table::Table;

pub fn run(args: MarksArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let registry = Registry::with(&context.config().join("marks.d")).map_err(anyhow::Error::msg)?;
    match args.command {
        MarksCommand::List => list(&registry, context)?,
        MarksCommand::Who { bits } => print_who(&registry, bits, context)?,
        MarksCommand::Decode { mark } => print_readings(&registry, mark, context)?,
        MarksCommand::Explain { software } => explain(&registry, &software, context)?,
        MarksCommand::Scan { netns, here } => live::scan(&registry, &netns, here, context)?,
        MarksCommand::Check { mask } => return live::check(&registry, mask, context),
        MarksCommand::Choose => field::choose(&registry, context)?,
        MarksCommand::Move { to, force, dry_run, no_wait } => {
            let to = to.map(|to| MarkLayout::new(to.0)).transpose()?;
            let request = MoveRequest { to: to.map(|to| to.to_string()), force, dry_run };
            return field::move_to(&request, no_wait, context);
        }
        MarksCommand::Header => field::header(context)?,
        MarksCommand::Simulate { with, mask } => return simulate(&registry, &with, mask, context),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(registry: &Registry, context: &mut Context) -> anyhow::Result<()> {
    if context.print_data(registry)? {
        return Ok(());
    }
    print_uses(
        registry.software.iter().flat_map(|s| s.uses.iter().map(|how| (s.name.as_str(), how))),
        context,
    )
}

fn print_who(registry: &Registry, bits: Bits, context: &mut Context) -> anyhow::Result<()> {
    let users = who(registry, bits.0);
    if context.print_data(&users)? {
        return Ok(());
    }
    print_uses(users.iter().map(|user| (user.title, user.how)), context)
}

fn print_uses<'a>(
    uses: impl Iterator<Item = (&'a str, &'a Use)>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let mut table = Table::new(&["SOFTWARE", "MARK", "MASK", "VALUES", "PURPOSE"]);
    for (name, how) in uses {
        table.row([name.into(), word(how.mark), how.mask.to_string(), values(how), how.purpose.clone()]);
    }
    context.out.print(&table.render())?;
    Ok(())
}

fn print_readings(registry: &Registry, mark: Bits, context: &mut Context) -> anyhow::Result<()> {
    let readings = decode(registry, mark.0);
    if context.print_data(&readings)? {
        return Ok(());
    }
    let mut table = Table::new(&["SOFTWARE", "MARK", "SAYS", "FIELDS"]);
    for reading in readings {
        let fields = reading.fields.iter().map(|(name, number, width)| match width {
            1 => format!("{name} {number}"),
            _ => format!("{name} {number:#x} ({number})"),
        });
        let fields: Vec<String> = fields.collect();
        table.row([reading.title.into(), word(reading.mark), reading.says.into(), fields.join(", ")]);
    }
    context.out.print(&table.render())?;
    Ok(())
}

fn explain(registry: &Registry, names: &[String], context: &mut Context) -> anyhow::Result<()> {
    let software = named(registry, names)?;
    let shown: Vec<&Software> = if names.is_empty() { registry.software.iter().collect() } else { software };
    if context.print_data(&shown)? {
        return Ok(());
    }
    let width = shown.iter().map(|s| s.name.len()).chain(["free for all".len()]).max().unwrap_or_default();
    for mark in [Mark::Packet, Mark::Connection, Mark::Socket, Mark::Ipsec] {
        let rows: Vec<(&Software, u32)> =
            shown.iter().map(|s| (*s, s.mask(mark))).filter(|(_, mask)| *mask != 0).collect();
        if rows.is_empty() {
            continue;
        }
        context.out.line(&format!("{} mark", word(mark)))?;
        for line in drawing::ruler() {
            context.out.line(format!("  {:width$}  {line}", "").trim_end())?;
        }
        for (software, mask) in &rows {
            context.out.line(&format!("  {:width$}  {}", software.name, drawing::bits(*mask)))?;
        }
        let taken = rows.iter().fold(0, |all, (_, mask)| all | mask);
        context.out.line(&format!("  {:width$}  {}", "free for all", drawing::bits(!taken)))?;
    }
    Ok(())
}

fn simulate(
    registry: &Registry,
    with: &[String],
    mask: Option<Bits>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let software = named(registry, with)?;
    let layout = match mask {
        Some(mask) => MarkLayout::new(mask.0)?,
        // Without a daemon, or without the right to ask it, the default is as good an answer.
        None => field::of_daemon(context)?.unwrap_or_default(),
    };
    let own = fief(layout);
    let all: Vec<&Software> = software.iter().copied().chain([&own]).collect();
    let found = collisions(&all);
    let status = if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.print_data(&found)? {
        return Ok(status);
    }
    if found.is_empty() {
        context.out.line("nothing collides")?;
    } else {
        let mut table = Table::new(&["BETWEEN", "AND", "MARK", "BITS", "ONE", "THE OTHER"]);
        for Collision { between: [one, other], mark, bits, purposes: [a, b] } in found {
            table.row([one, other, word(mark), format!("{bits:#x}"), a, b]);
        }
        context.out.print(&table.render())?;
    }
    let taken = software.iter().fold(0, |taken, s| taken | s.mask(Mark::Packet));
    let advice = match room(taken) {
        Some(room) if room == layout => format!("fief's field {layout} lies beside all of them"),
        Some(room) if taken & layout.mask() == 0 => {
            format!("fief's field {layout} lies beside all of them; {room} would be as good or wider")
        }
        Some(room) => format!(
            "fief's field fits at {room}, for {} tenants: write markMask: \"{room}\" in fiefd.yaml",
            room.capacity()
        ),
        None => "fief's field fits nowhere beside them: fewer than four adjacent bits are free".to_owned(),
    };
    context.out.line(&advice)?;
    Ok(status)
}

fn fief(layout: MarkLayout) -> Software {
    let own = |mark| Use {
        mark,
        mask: Bits(layout.mask()),
        values: Vec::new(),
        range: None,
        purpose: "the tenant".into(),
    };
    let uses = [Mark::Packet, Mark::Socket].map(own).into();
    Software {
        name: "fief".into(),
        title: "fief".into(),
        sources: Vec::new(),
        signs: Vec::new(),
        uses,
        layouts: Vec::new(),
    }
}

fn named<'a>(registry: &'a Registry, names: &[String]) -> anyhow::Result<Vec<&'a Software>> {
    let find = |name: &String| {
        registry.named(name).with_context(|| format!("nobody is known as `{name}` (see `fief marks list`)"))
    };
    names.iter().map(find).collect()
}

fn values(how: &Use) -> String {
    let values: Vec<String> = how.values.iter().map(ToString::to_string).collect();
    match how.range {
        Some([first, last]) => format!("{first} to {last}"),
        None if values.is_empty() => "any".into(),
        None => values.join(", "),
    }
}

pub(super) fn word(mark: Mark) -> String {
    match mark {
        Mark::Packet => "packet",
        Mark::Connection => "connection",
        Mark::Socket => "socket",
        Mark::Ipsec => "ipsec",
    }
    .into()
}
