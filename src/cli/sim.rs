//! `pipepost sim`: a simulator alone.

use std::io::BufRead as _;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::args::{SimModem, SimPipedrive};
use super::error::{CliError, DATA, IO, SOFTWARE};
use super::{output, run};
use crate::config;
use crate::domain::Secret;
use crate::logging;
use crate::sim::modem::{self, Cable, Counts, Modem, Said};
use crate::sim::pipedrive::{self, App, Faults, Limits, Plan, RunOptions};

/// `pipepost sim pipedrive`: runs until Ctrl-C.
pub(super) async fn pipedrive(options: SimPipedrive) -> Result<(), CliError> {
    logging::start(&config::Log {
        level: log::LevelFilter::Info,
    })
    .map_err(|error| CliError::new(SOFTWARE, format!("cannot log: {error}")))?;
    let faults = faults(&options.faults)?;
    let limits = limits(options.plan.as_deref(), options.seats)?;
    let app = options
        .oauth
        .then(|| app(&options.oauth_rules, &options.no_admin))
        .transpose()?;
    let mut stop = run::signals()?.stop;
    let (token, client_id) = (options.token.clone(), options.client_id.clone());
    let run_options = RunOptions {
        address: options.bind,
        page_address: None,
        tls: !options.plain_http,
        names: Vec::new(),
        ca_file: options.ca_out,
        token: Secret::new(options.token),
        client_id: options.client_id,
        client_secret: Secret::new(options.client_secret),
        gateway_url: options.gateway_url,
        gateway_ca_file: options.gateway_ca,
        faults,
        limits,
        app,
        clock_ahead: Duration::from_secs(options.clock_ahead),
        clock_speed: options.clock_speed,
    };
    let token = if run_options.app.is_some() {
        format!("by OAuth 2.0, e.g. GET /oauth/authorize?client_id={client_id}&redirect_uri=…")
    } else {
        token
    };
    let ready = |api: &str, page: &str| {
        output::note(&format!(
            "Channels API  {api}\ninbox page    {page}\ntoken         {token}\nclient id     {client_id}\nCtrl-C ends it"
        ));
    };
    let stopped = async {
        // An error means that nobody can send a signal any more: the end as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    pipedrive::run(run_options, ready, stopped)
        .await
        .map_err(|error| CliError::new(IO, error.to_string()))
}

/// `name=value` pairs, the value as JSON.
fn faults(pairs: &[String]) -> Result<Faults, CliError> {
    Faults::default()
        .changed(&change("--fault", pairs)?)
        .map_err(|reason| CliError::new(DATA, format!("--fault: {reason}")))
}

fn app(rules: &[String], no_admin: &[i64]) -> Result<App, CliError> {
    let mut app = App::default();
    app.rules = app
        .rules
        .changed(&change("--oauth-rule", rules)?)
        .map_err(|reason| CliError::new(DATA, format!("--oauth-rule: {reason}")))?;
    for user in &mut app.users {
        user.admin &= !no_admin.contains(&user.id);
    }
    Ok(app)
}

fn change(option: &str, pairs: &[String]) -> Result<Value, CliError> {
    let mut change = Map::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::new(DATA, format!("{option} {pair:?} has no value")).hint("write name=value")
        })?;
        // What is no number, true or false is text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        change.insert(name.to_owned(), value);
    }
    Ok(Value::Object(change))
}

fn limits(plan: Option<&str>, seats: u32) -> Result<Limits, CliError> {
    let plan = match plan {
        None => return Ok(Limits::default()),
        Some("lite") => Plan::Lite,
        Some("growth") => Plan::Growth,
        Some("premium") => Plan::Premium,
        Some("ultimate") => Plan::Ultimate,
        Some(other) => {
            return Err(CliError::new(DATA, format!("--plan {other:?} is not a plan"))
                .hint("use lite, growth, premium or ultimate"));
        }
    };
    Ok(Limits::of_plan(plan, seats))
}

/// Lines of standard input that wait.
const LINES: usize = 64;

/// `pipepost sim modem`: runs until Ctrl-C or `quit`.
pub(super) async fn modem(options: SimModem) -> Result<(), CliError> {
    let mut stop = run::signals()?.stop;
    let cable = match options.listen_abstract {
        Some(name) => Cable::Abstract(name),
        None => Cable::Pty { link: options.link },
    };
    let profile = options
        .profile
        .parse()
        .map_err(|hint: String| CliError::new(DATA, "--profile is not a make").hint(&hint))?;
    let modem = Modem::start(
        modem::Options {
            profile,
            has_sim: !options.no_sim,
            pin: options.pin,
            sim_places: options.places,
            send_time: Duration::from_millis(options.send_time),
            report_after: Duration::from_millis(options.report_after),
            text_interval: Duration::from_millis(options.text_interval),
            booted: !options.boot,
            ..modem::Options::default()
        },
        &cable,
    )
    .map_err(|error| CliError::new(IO, format!("cannot make a modem: {error}")))?;
    for command in &options.commands {
        match modem::obey(&modem, &cable, command).await {
            Ok(Said::Words(words)) => output::print(&words)?,
            Ok(Said::Quit) => return Ok(()),
            Err(reason) => return Err(CliError::new(DATA, format!("--do {command:?}: {reason}"))),
        }
    }
    output::print(&format!("modem at {}\n", modem.path().display()))?;
    let mut lines = standard_input();
    let mut counts = modem.watch_counts();
    let mut known = *counts.borrow_and_update();
    loop {
        tokio::select! {
            // An error means that nobody can send a signal any more: the end as well.
            _ = stop.wait_for(|stop| *stop) => break,
            changed = counts.changed() => {
                if changed.is_err() {
                    break;
                }
                let now = *counts.borrow_and_update();
                output::print(&news(&modem, known, now))?;
                known = now;
            }
            Some(line) = lines.recv() => match modem::obey(&modem, &cable, &line).await {
                Ok(Said::Words(words)) => output::print(&words)?,
                Ok(Said::Quit) => break,
                Err(reason) => output::note(&reason),
            },
        }
    }
    modem.stop().await;
    Ok(())
}

/// What a look at the terminal should show of a change.
fn news(modem: &Modem, before: Counts, now: Counts) -> String {
    let mut lines = Vec::new();
    modem.with(|engine| {
        for sent in engine.sent().iter().skip(before.sent) {
            let part = sent.part.map_or_else(String::new, |part| {
                format!(", part {} of {}", part.number, part.total)
            });
            let text = sent.text.as_deref().unwrap_or("(data)");
            lines.push(format!(
                "sent to {} (reference {}{part}): {text}\n",
                sent.to, sent.reference
            ));
        }
        for reason in engine.refused().iter().skip(before.refused) {
            lines.push(format!("refused a PDU: {reason}\n"));
        }
    });
    if now.restarts > before.restarts {
        lines.push("restarted\n".to_owned());
    }
    if now.registered != before.registered {
        let words = if now.registered {
            "in the network"
        } else {
            "without a network"
        };
        lines.push(format!("{words}\n"));
    }
    lines.concat()
}

/// The lines of standard input. A thread reads them: it may wait there for ever, and the process ends without it.
fn standard_input() -> mpsc::Receiver<String> {
    let (to, lines) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if to.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
