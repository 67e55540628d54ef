//! The first words on a socket: `hello`, registration of workflows, the session, `welcome`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::delivery::{Close, Welcome};
use helve_domain::error::{Code, Error, Result};
use helve_domain::scope::Scope;
use helve_domain::ticket::Allowed;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tracing::info;

use super::guest::{Caller, Guest, Who};
use super::wire::{End, Step, Wire};
use super::{Context, refusals};
use crate::frames::{self, Checked, Fault, Frame, HelloFrame, Warning};
use crate::hub::{self, Inbox};
use crate::sched::{Connection, Hello};

/// How long a socket may stay without a `hello`.
const HELLO: Duration = Duration::from_secs(5);
/// How long the registration of a worker's workflows may take.
const REGISTRATION: Duration = Duration::from_secs(30);
/// How long a look for workflows may take that only serves a warning.
const LOOK: Duration = Duration::from_millis(200);
/// Actions without a workflow that are named.
const WARNED: usize = 16;
/// Actions that the log names of a worker.
const LISTED: usize = 8;
/// Messages that are read before the worker's session is open: they wait for it, and what follows stays unread.
const EARLY: usize = 16;

/// Takes the worker's `hello`, opens its session and queues the `welcome`.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &Context,
    wire: &mut Wire<S>,
    mut caller: Caller,
) -> Result<(Guest, Welcome, Connection, Inbox), End> {
    let token = caller.token();
    let (hello, unknown) = first_hello(ctx, wire, &mut caller).await?;
    let mut warnings: Vec<Warning> = unknown.into_iter().map(Warning::from).collect();
    let opened = match introduce(ctx, caller, hello, &mut warnings).await {
        Ok((guest, hello)) => {
            let (name, actions) = (Arc::clone(&hello.info.name), listed(&hello.info.actions));
            open(ctx, wire, hello).await?.map(|opened| (guest, (name, actions), opened))
        }
        Err(err) => Err(err),
    };
    match opened {
        Ok((guest, (name, actions), (welcome, connection, inbox))) => {
            let Welcome { worker, session, resumed, .. } = &welcome;
            info!(%worker, %session, name = &*name, actions, resumed, "worker connected");
            wire.push(frames::welcome(&welcome, &warnings, ctx.scheduler.node(), &ctx.scheduling, &ctx.limits));
            Ok((guest, welcome, connection, inbox))
        }
        Err(err) => {
            if let Error::Internal(details) = &err {
                tracing::error!(error = details, "a hello failed");
            }
            Err(refusals::refuse(ctx, wire, token, &Fault::from(&err), close_for(&err)).await)
        }
    }
}

/// Actions for a line of the log: the first of them, and how many more there are.
fn listed(actions: &[Arc<str>]) -> String {
    let first: Vec<_> = actions.iter().take(LISTED).map(|action| &**action).collect();
    match actions.len().saturating_sub(LISTED) {
        0 => first.join(","),
        more => format!("{} and {more} more", first.join(",")),
    }
}

/// Learns who the worker is, and registers what it brings: committed when this returns.
async fn introduce(
    ctx: &Context,
    caller: Caller,
    mut hello: HelloFrame,
    warnings: &mut Vec<Warning>,
) -> Result<(Guest, Hello)> {
    let ticket = hello.take_ticket();
    let checked = hello.check(&ctx.limits)?;
    warnings.extend(checked.warnings());
    let guest = caller.guest(ticket).await?;
    let hello = register(ctx, guest.who, guest.allowed.as_ref(), checked).await?;
    // One that goes on was told before, and comes when there is no time to lose.
    if hello.resume.is_none() {
        warnings.extend(without_workflow(ctx, &hello).await);
    }
    Ok((guest, hello))
}

/// A word on each action that no workflow has. No worker waits for it: a database that is slow has other troubles.
async fn without_workflow(ctx: &Context, hello: &Hello) -> Vec<Warning> {
    let found = tokio::time::timeout(LOOK, (ctx.without_workflow)(hello.tenant, hello.info.actions.clone())).await;
    let actions = found.ok().and_then(Result::ok).unwrap_or_default();
    actions.iter().take(WARNED).map(|action| Warning::no_workflow(action)).collect()
}

/// Reads until a `hello` comes, and gives it with its fields that nobody knows. Other frames are answered and change nothing.
async fn first_hello<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &Context,
    wire: &mut Wire<S>,
    caller: &mut Caller,
) -> Result<(HelloFrame, Vec<Fault>), End> {
    let deadline = Instant::from_std(ctx.clock.instant() + HELLO);
    let token = caller.token();
    loop {
        let read = !wire.congested();
        let message = tokio::select! {
            step = wire.step(read) => match step {
                Step::Read(message) => message,
                Step::Flushed => continue,
                Step::Ended(end) => return Err(end),
            },
            () = caller.revoked() => return Err(End::Close(Close::Auth)),
            () = ctx.stopping.cancelled() => return Err(End::Close(Close::Draining)),
            () = tokio::time::sleep_until(deadline) => return Err(End::Close(Close::NoHello)),
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => {
                return Err(refusals::refuse(ctx, wire, token, &Fault::binary(), Close::BadFrame).await);
            }
            Message::Close(_) => return Err(End::Gone),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let decoded = frames::decode(&text.into(), &ctx.limits);
        if let (false, Some(fault)) = (decoded.is_frame, decoded.faults.first()) {
            return Err(refusals::refuse(ctx, wire, token, fault, Close::BadFrame).await);
        }
        for fault in &decoded.faults {
            wire.push(frames::fault(fault));
        }
        match decoded.frame {
            Some(Frame::Hello(Ok(hello))) => return Ok((*hello, decoded.unknown)),
            Some(Frame::Hello(Err(fault))) => {
                return Err(refusals::refuse(ctx, wire, token, &fault, Close::BadFrame).await);
            }
            Some(_) => {
                let message = "the first frame must be `hello`; this one was ignored";
                wire.push(frames::fault(&Fault::whole(Code::HelloRequired, message)));
            }
            None => {}
        }
    }
}

/// Registers what the worker brings, as far as it may.
async fn register(ctx: &Context, who: Who, allowed: Option<&Allowed>, hello: Checked) -> Result<Hello> {
    let Checked { info, workflows, resume } = hello;
    if let Some(allowed) = allowed {
        if !workflows.is_empty() {
            return Err(Error::not_allowed("/workflows", "a worker that comes by a ticket registers no workflows"));
        }
        allowed.check(&info)?;
    }
    if !workflows.is_empty() && !who.scopes.allow(Scope::Write) {
        return Err(Error::Forbidden(Scope::Write.as_str()));
    }
    let registration = async {
        for (i, (name, definition)) in workflows.into_iter().enumerate() {
            (ctx.register)(who.tenant, name, definition, format!("/workflows/{i}")).await?;
        }
        Ok(())
    };
    tokio::time::timeout(REGISTRATION, registration)
        .await
        .map_err(|_| Error::unavailable("registering the workflows took too long"))??;
    Ok(Hello { tenant: who.tenant, token: who.token, info, resume })
}

/// Opens the worker's session: committed when this returns. A socket that ends meanwhile leaves none behind.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &Context,
    wire: &mut Wire<S>,
    hello: Hello,
) -> Result<Result<(Welcome, Connection, Inbox)>, End> {
    let (outbox, inbox) = hub::outbox(ctx.shares.count(hello.tenant, 0));
    let mut opened = pin!(ctx.scheduler.connect(hello, outbox));
    let mut early = Vec::new();
    let opened = loop {
        let read = !wire.congested() && early.len() < EARLY;
        tokio::select! {
            opened = &mut opened => break opened,
            step = wire.step(read) => match step {
                Step::Read(Message::Close(_)) => return Err(End::Gone),
                Step::Read(message) => early.push(message),
                Step::Flushed => {}
                Step::Ended(end) => return Err(end),
            },
        }
    };
    wire.unread(early);
    Ok(opened.map(|(welcome, connection)| (welcome, connection, inbox)))
}

/// What the worker should do about an error of its `hello`.
const fn close_for(err: &Error) -> Close {
    match err {
        Error::Invalid { code: Code::Forbidden | Code::OriginNotAllowed, .. } => Close::NotAllowed,
        Error::Invalid { .. } | Error::TooLarge { .. } | Error::NotFound { .. } | Error::Conflict { .. } => {
            Close::BadFrame
        }
        Error::Unauthenticated(_) => Close::Auth,
        Error::Forbidden(_) => Close::NotAllowed,
        Error::Limited { .. } => Close::TooMany,
        Error::Unavailable { .. } | Error::OutcomeUnknown | Error::Internal(_) => Close::Draining,
    }
}
