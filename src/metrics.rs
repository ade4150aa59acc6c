//! Prometheus text for the control socket's `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The figures of one scrape. They come from the rooms' own counts, so that a figure has one home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Messages kept.
    pub messages: u64,
    /// Conversations kept.
    pub conversations: u64,
    /// Bytes of texts and files kept.
    pub logical_bytes: u64,
    /// Queue lengths: `to_uplink` messages and statuses, `to_hardware`.
    pub queued: Vec<(&'static str, u64)>,
    /// Packets that no mapping could read.
    pub unmapped: u64,
    /// 1 while no hardware is acknowledged for want of space.
    pub store_full: bool,
    /// 1 while a damaged database that was replaced is kept.
    pub store_damaged: bool,
    /// Messages that it has cost at most, as far as that is known.
    pub store_lost: u64,
    /// Answers that were held back then, because they may have left before.
    pub store_held: u64,
    /// State of the way to Pipedrive, one word.
    pub uplink_state: String,
    /// API tokens of the day by installation.
    pub budgets: Vec<BudgetFigures>,
    /// Accepted by Pipedrive.
    pub accepted: u64,
    /// Refused by Pipedrive for good.
    pub failed: u64,
    /// Who has connected, and whether that works.
    pub installations: Vec<(String, bool)>,
    /// Requests to the listener, and those with wrong credentials.
    pub requests: u64,
    /// Requests with wrong credentials.
    pub unauthorized: u64,
    /// Brokers and modems with whether they are connected.
    pub links: Vec<(String, bool)>,
    /// Modems with their figures.
    pub modems: Vec<(String, ModemFigures)>,
    /// Channel, handed over, rejected, unknown.
    pub lanes: Vec<(String, u64, u64, u64)>,
}

/// The API tokens of an installation's day; what is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetFigures {
    /// Which installation.
    pub installation: String,
    /// Whether its messages flow, one word.
    pub state: String,
    /// Spent by this gateway today.
    pub spent: u64,
    /// Left today.
    pub left: Option<u64>,
    /// When they end at the present rate, if that is today: seconds since 1970.
    pub ends_at_s: Option<i64>,
}

/// A modem's figures; what is not known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModemFigures {
    /// Signal strength in dBm.
    pub signal_dbm: Option<i16>,
    /// Messages in its memory.
    pub storage_used: Option<u16>,
    /// Places of its memory.
    pub storage_total: Option<u16>,
    /// Parts sent today (UTC).
    pub sent_today: u32,
    /// Messages that wait for parts.
    pub incomplete: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    channel: String,
    outcome: &'static str,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InstallationState {
    installation: String,
    name: String,
}

fn budgets(registry: &mut Registry, budgets: &[BudgetFigures]) {
    let mut family = |name: &str, help: &str, value: fn(&BudgetFigures) -> Option<i64>| {
        let family = Family::<Label, Gauge>::default();
        for budget in budgets {
            if let Some(value) = value(budget) {
                let name = budget.installation.clone();
                family.get_or_create(&Label { name }).set(value);
            }
        }
        registry.register(name, help, family);
    };
    family("budget_spent", "API tokens spent today", |budget| {
        Some(signed(budget.spent))
    });
    family("budget_left", "API tokens left today", |budget| {
        budget.left.map(signed)
    });
    family(
        "budget_ends_at_seconds",
        "When the API tokens end at the present rate, if that is today",
        |budget| budget.ends_at_s,
    );
    let states = Family::<InstallationState, Gauge>::default();
    for budget in budgets {
        let label = InstallationState {
            installation: budget.installation.clone(),
            name: budget.state.clone(),
        };
        states.get_or_create(&label).set(1);
    }
    registry.register(
        "installation_state",
        "1 for the state that holds for an installation",
        states,
    );
}

type Figure = fn(&ModemFigures) -> Option<i64>;

fn modems(registry: &mut Registry, modems: &[(String, ModemFigures)]) {
    if modems.is_empty() {
        return;
    }
    let figures: [(&str, &str, Figure); 5] = [
        ("modem_signal_dbm", "Signal strength", |modem| {
            modem.signal_dbm.map(i64::from)
        }),
        ("modem_storage_used", "Messages in the modem's memory", |modem| {
            modem.storage_used.map(i64::from)
        }),
        ("modem_storage_total", "Places of the modem's memory", |modem| {
            modem.storage_total.map(i64::from)
        }),
        (
            "modem_parts_sent_today",
            "Parts sent since midnight UTC",
            |modem| Some(i64::from(modem.sent_today)),
        ),
        ("modem_incomplete", "Messages that wait for parts", |modem| {
            Some(signed(modem.incomplete))
        }),
    ];
    for (name, help, figure) in figures {
        let family = Family::<Label, Gauge>::default();
        for (modem, value) in modems
            .iter()
            .filter_map(|(modem, figures)| Some((modem, figure(figures)?)))
        {
            family.get_or_create(&Label { name: modem.clone() }).set(value);
        }
        registry.register(name, help, family);
    }
}

/// The snapshot in the Prometheus text format (`OpenMetrics`).
///
/// # Errors
/// Never in practice: writing to a string fails only when memory does.
pub fn render(snapshot: &Snapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("pipepost");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(signed(value));
        registry.register(name, help, gauge);
    };
    gauge("uptime_seconds", "Time since the start", snapshot.uptime_s);
    gauge("messages", "Messages kept in the store", snapshot.messages);
    gauge("conversations", "Conversations kept", snapshot.conversations);
    gauge(
        "store_logical_bytes",
        "Bytes of texts and files kept",
        snapshot.logical_bytes,
    );
    gauge(
        "unmapped",
        "Packets kept that no mapping could read",
        snapshot.unmapped,
    );
    gauge(
        "store_full",
        "1 while no hardware is acknowledged for want of space",
        u64::from(snapshot.store_full),
    );
    gauge(
        "store_damaged",
        "1 while a damaged database that was replaced is kept",
        u64::from(snapshot.store_damaged),
    );
    gauge("store_lost", "Messages it cost, at most", snapshot.store_lost);
    gauge("store_held", "Answers it held back", snapshot.store_held);

    let mut family = |name: &str, help: &str, rows: Vec<(String, u64)>| {
        let family = Family::<Label, Gauge>::default();
        for (name, value) in rows {
            family.get_or_create(&Label { name }).set(signed(value));
        }
        registry.register(name, help, family);
    };
    let queued = snapshot
        .queued
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    family("queued", "Entries in a queue", queued);
    let links = snapshot
        .links
        .iter()
        .map(|(name, up)| (name.clone(), u64::from(*up)))
        .collect();
    family("link_up", "1 while a broker or modem is connected", links);
    let installations = snapshot
        .installations
        .iter()
        .map(|(name, connected)| (name.clone(), u64::from(*connected)))
        .collect();
    family(
        "installation_connected",
        "1 while an installation works, 0 when somebody has to connect again",
        installations,
    );
    family(
        "uplink_state",
        "1 for the state that holds",
        vec![(snapshot.uplink_state.clone(), 1)],
    );

    budgets(&mut registry, &snapshot.budgets);
    modems(&mut registry, &snapshot.modems);

    let mut counter = |name: &str, help: &str, value: u64| {
        let counter: Counter<u64, AtomicU64> = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter("uplink_accepted", "Accepted by Pipedrive", snapshot.accepted);
    counter("uplink_failed", "Refused by Pipedrive for good", snapshot.failed);
    counter(
        "listener_requests",
        "Requests to the manifest listener",
        snapshot.requests,
    );
    counter(
        "listener_unauthorized",
        "Requests with wrong credentials",
        snapshot.unauthorized,
    );

    let outcomes = Family::<Outcome, Counter>::default();
    for (channel, sent, rejected, unknown) in &snapshot.lanes {
        for (outcome, value) in [("sent", *sent), ("rejected", *rejected), ("unknown", *unknown)] {
            outcomes
                .get_or_create(&Outcome {
                    channel: channel.clone(),
                    outcome,
                })
                .inc_by(value);
        }
    }
    registry.register("outgoing", "Outcomes of attempts to send", outcomes);

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_names_every_link_queue_and_outcome() {
        let snapshot = Snapshot {
            messages: 3,
            queued: vec![("to_uplink", 2)],
            links: vec![("broker site".to_owned(), true)],
            modems: vec![(
                "modem office".to_owned(),
                ModemFigures {
                    signal_dbm: Some(-73),
                    ..ModemFigures::default()
                },
            )],
            lanes: vec![("sms".to_owned(), 4, 0, 1)],
            uplink_state: "running".to_owned(),
            budgets: vec![BudgetFigures {
                installation: "static".to_owned(),
                state: "running".to_owned(),
                spent: 120,
                left: Some(29_880),
                ends_at_s: None,
            }],
            ..Snapshot::default()
        };
        let text = render(&snapshot).unwrap();
        for line in [
            "pipepost_messages 3",
            "pipepost_queued{name=\"to_uplink\"} 2",
            "pipepost_link_up{name=\"broker site\"} 1",
            "pipepost_modem_signal_dbm{name=\"modem office\"} -73",
            "pipepost_outgoing_total{channel=\"sms\",outcome=\"unknown\"} 1",
            "pipepost_uplink_state{name=\"running\"} 1",
            "pipepost_budget_left{name=\"static\"} 29880",
            "pipepost_installation_state{installation=\"static\",name=\"running\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
