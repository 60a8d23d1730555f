//! `fief marks choose`, `move` and `header`: where fief's own field is, and where it goes.

use std::process::ExitCode;

use fief_api::{FieldView, MoveRequest, MovingView};
use fief_host::namespaces::Namespace;
use fief_marks::registry::Registry;
use fief_marks::{MarkLayout, Positions, header as c};
use fief_scan::conflicts;

use super::live::{look, tenants};
use crate::context::Context;

/// What a daemon that writes no marks says of its field.
const NONE: &str = "none";

/// The field of the daemon, if one answers and has one.
pub(super) fn of_daemon(context: &Context) -> anyhow::Result<Option<MarkLayout>> {
    Ok(context.client()?.status().ok().and_then(|status| status.mark_mask.parse().ok()))
}

/// Does a daemon answer that writes no marks?
pub(super) fn is_markless(context: &Context) -> anyhow::Result<bool> {
    Ok(context.client()?.status().is_ok_and(|status| status.mark_mask == NONE))
}

pub(super) fn choose(registry: &Registry, context: &mut Context) -> anyhow::Result<()> {
    let now = of_daemon(context)?;
    let mut uses = look(&[Namespace::current()]).uses;
    if let Some(now) = now {
        uses = conflicts::without_own(uses, registry, now, &tenants(context));
    }
    let choice = conflicts::choose(&uses, registry, now, &[]);
    if context.print_data(&choice)? {
        return Ok(());
    }
    context.out.line(&format!("{}: {}", choice.mask, choice.reason))?;
    context.out.line(&format!("room for {} tenants", choice.mask.capacity()))?;
    if !choice.known.is_empty() {
        context.out.line(&format!("would be in the way of, if they came: {}", choice.known.join(", ")))?;
    }
    if choice.errors + choice.warnings > 0 {
        context.out.line(
            "no place on this host is without conflicts; networks need no mark at all: with `markMask: none` in \
             fiefd.yaml fief writes none",
        )?;
    }
    Ok(())
}

pub(super) fn move_to(
    request: &MoveRequest,
    no_wait: bool,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let under_way = client.field()?.moving.filter(|_| request.to.is_none() && !request.dry_run);
    if under_way.is_none() {
        let answer = client.move_field(request)?;
        if request.dry_run || no_wait {
            if !context.print_data(&answer)? {
                let (to, reason, tenants) = (&answer.to, &answer.reason, answer.tenants);
                context.out.line(&format!("to {to}, for {tenants} tenants: {reason}"))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut told = String::new();
    let mut seen = None;
    let field = loop {
        let (field, revision) = client.field_since(seen)?;
        seen = Some(revision);
        let Some(moving) = &field.moving else { break field };
        let now = progress(moving);
        if now != told && matches!(context.format, crate::args::Format::Table) {
            context.out.line(&now)?;
            context.out.flush()?;
            told = now;
        }
    };
    let arrived = request.to.as_ref().is_none_or(|to| *to == field.mask);
    if !context.print_data(&field)? {
        let FieldView { mask, tenants, reason, .. } = &field;
        context.out.line(&format!("the field is at {mask}, for {tenants} tenants: {reason}"))?;
        if let Some(configured) = field.configured.as_ref().filter(|configured| *configured != mask) {
            context.out.line(&format!(
                "markMask in fiefd.yaml still says {configured}, where the next start would move it back to: \
                 write {mask} there"
            ))?;
        }
    }
    Ok(if arrived { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress(moving: &MovingView) -> String {
    let MovingView { from, to, phase, sockets_left, .. } = moving;
    let what = match phase.as_str() {
        "both" if *sockets_left > 0 => {
            format!("{sockets_left} sockets still say their tenant in the old bits only")
        }
        "both" => "the tenant is written to both places".to_owned(),
        "read" => "the new place counts".to_owned(),
        _ => "the old bits are taken off".to_owned(),
    };
    format!("{from} to {to}: {what}")
}

pub(super) fn header(context: &mut Context) -> anyhow::Result<()> {
    let field = context.client()?.field()?;
    anyhow::ensure!(
        field.mask != NONE,
        "fief writes no marks on this host (`markMask: none` in fiefd.yaml): there is no field that a header could name"
    );
    let layout = |mask: &str| mask.parse::<MarkLayout>().map_err(anyhow::Error::from);
    let also = field.also.as_deref().map(layout).transpose()?;
    context.out.print(&c::others(Positions { read: layout(&field.mask)?, also }))?;
    Ok(())
}
