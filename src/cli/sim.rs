//! `pipepost sim`: a simulator alone.

use serde_json::{Map, Value};

use super::args::SimPipedrive;
use super::error::{CliError, DATA, IO, SOFTWARE};
use super::{output, run};
use crate::config;
use crate::domain::Secret;
use crate::logging;
use crate::sim::pipedrive::{self, Faults, Limits, Plan, RunOptions};

/// `pipepost sim pipedrive`: runs until Ctrl-C.
pub(super) async fn pipedrive(options: SimPipedrive) -> Result<(), CliError> {
    logging::start(&config::Log {
        level: log::LevelFilter::Info,
    })
    .map_err(|error| CliError::new(SOFTWARE, format!("cannot log: {error}")))?;
    let faults = faults(&options.faults)?;
    let limits = limits(options.plan.as_deref(), options.seats)?;
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
    let mut change = Map::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::new(DATA, format!("--fault {pair:?} has no value")).hint("write name=value")
        })?;
        let value: Value = serde_json::from_str(value).map_err(|_| {
            CliError::new(
                DATA,
                format!("--fault {pair:?}: the value is no number, true or false"),
            )
        })?;
        change.insert(name.to_owned(), value);
    }
    Faults::default()
        .changed(&Value::Object(change))
        .map_err(|reason| CliError::new(DATA, format!("--fault: {reason}")))
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
