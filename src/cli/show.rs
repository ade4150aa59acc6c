//! Answers of the daemon as text for a person at a terminal.

use std::fmt::Write;

use crate::control::{
    ChannelStatus, ContactsPage, Conversation, ConversationRow, InstallationStatus, LinkStatus, MessageRow,
    QueueView, Status, StoreStatus, UnmappedRow, UplinkSummary,
};
use crate::driver::sms::ModemStatus;
use crate::protocol::sms::international_form;

/// Writing into a `String` cannot fail; the macro keeps the lines below readable.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        if writeln!($out, $($arg)*).is_err() {
            return $out;
        }
    };
}

/// Control characters of a customer's text could move the cursor or colour the terminal: they are shown as `·`.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect()
}

fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in UNITS {
        if count >= size {
            let tenths = count.saturating_mul(10) / size;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

fn duration(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

/// `1 message`, `2 messages`
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn prefixed(prefix: &str, text: Option<&str>) -> String {
    text.map(|text| format!("{prefix}{text}")).unwrap_or_default()
}

fn installations(all: &[InstallationStatus]) -> String {
    let mut out = String::new();
    for one in all {
        let channels = if one.channels.is_empty() {
            "no channels".to_owned()
        } else {
            one.channels.join(", ")
        };
        let state = one.state.replace('_', " ");
        let shown = if state == "connected" {
            state
        } else {
            state.to_uppercase()
        };
        let shared = if one.shared {
            " · shared with the company"
        } else {
            ""
        };
        line!(
            out,
            "account    {} of {} ({}) · {shown}{} · {channels}{shared}",
            printable(&one.user),
            printable(&one.company),
            one.id,
            prefixed(" since ", one.since.as_deref())
        );
        if let (Some(token), Some(ends)) = (&one.token_expires_at, &one.ends_at) {
            line!(
                out,
                "           token until {token}, renewed before; without a renewal all ends {ends}"
            );
        }
        if let Some(warning) = &one.warning {
            line!(out, "           WARNING: {warning}");
        }
        if let Some(reason) = &one.reason {
            line!(out, "           {}", printable(reason));
        }
    }
    out
}

fn pipedrive(uplink: &UplinkSummary) -> String {
    let mut out = String::new();
    line!(out, "pipedrive  {}", uplink.words);
    line!(
        out,
        "           {} accepted, {} refused since the start",
        uplink.accepted,
        uplink.failed
    );
    for budget in &uplink.budgets {
        match uplink.budgets.len() {
            1 => line!(out, "budget     {}", budget.words),
            _ => line!(
                out,
                "budget     {} ({}): {}",
                budget.installation,
                budget.state,
                budget.words
            ),
        }
    }
    for waiting in &uplink.waiting {
        let (attempt, next) = (waiting.attempts + 1, duration(waiting.next_attempt_s));
        line!(
            out,
            "           {} waits, attempt {attempt} in {next}: {}",
            waiting.conversation,
            waiting.reason
        );
    }
    out
}

/// `pipepost status`
#[must_use]
pub(super) fn status(status: &Status) -> String {
    let mut out = String::new();
    if status.running {
        line!(
            out,
            "pipepost   {} · gateway {} · up {}",
            status.version,
            status.gateway_id,
            duration(status.uptime_s)
        );
        line!(out, "clock      {}", status.clock);
    } else {
        line!(
            out,
            "pipepost   {} · gateway {} · NOT RUNNING (read from the store)",
            status.version,
            status.gateway_id
        );
        line!(
            out,
            "           start it with `systemctl start pipepost`; why it ended says `journalctl -u pipepost`"
        );
    }
    if let Some(listener) = &status.listener {
        let last = listener.last_call.as_deref().unwrap_or("never since the start");
        let (requests, unauthorized) = (listener.requests, listener.unauthorized);
        line!(
            out,
            "listener   {} · {requests} requests, {unauthorized} with wrong credentials",
            listener.address
        );
        line!(out, "           certificate {}", listener.certificate);
        if !listener.credentials {
            line!(
                out,
                "           NO CLIENT ID OR SECRET: every call of Pipedrive is refused, see `pipepost check`"
            );
        }
        line!(out, "           Pipedrive last called: {last}");
    }
    if let Some(uplink) = &status.uplink {
        out.push_str(&pipedrive(uplink));
    }
    out.push_str(&installations(&status.installations));
    let store = &status.store;
    let size = bytes(store.logical_bytes);
    line!(
        out,
        "store      {} messages in {} conversations, {size}",
        store.messages,
        store.conversations
    );
    line!(
        out,
        "queues     {} messages and {} status updates to Pipedrive, {} answers to the hardware",
        store.queued_messages,
        store.queued_statuses,
        store.queued_outgoing
    );
    if let Some(last) = &store.last_refused {
        line!(
            out,
            "updates    {} did not reach Pipedrive, which goes on showing an older state; last {}: {}",
            counted(store.refused_updates, "status update"),
            last.message,
            printable(&last.reason)
        );
        line!(
            out,
            "           see `pipepost conversations show {}`",
            last.conversation
        );
    }
    if store.unmapped > 0 {
        line!(
            out,
            "unmapped   {} packets could not be read: see `pipepost unmapped`",
            store.unmapped
        );
    }
    if let Some(alarm) = &store.alarm {
        line!(out, "ALARM      {alarm}");
    }
    out.push_str(&damaged(store));
    out.push_str(&links(&status.links));
    out.push_str(&channels(&status.channels));
    out
}

/// What a damaged database has cost.
fn damaged(store: &StoreStatus) -> String {
    let mut out = String::new();
    if let Some(folder) = &store.damaged {
        line!(
            out,
            "ALARM      the database was damaged and has been replaced; lost: {}. {folder}/report.txt says more: \
             remove that folder when nobody needs it any more",
            store
                .lost
                .as_deref()
                .map_or_else(|| "see there".into(), printable)
        );
        if store.held > 0 {
            line!(
                out,
                "           {} answers were waiting then and may have left before: they were not sent again but are \
                 shown as failed, unless `on_unknown` says so. The report names them: see `pipepost conversations show \
                 ID`, and answer again where that is needed",
                store.held
            );
        }
    }
    out
}

/// Brokers and modems.
fn links(links: &[LinkStatus]) -> String {
    let mut out = String::new();
    for link in links {
        let state = match (link.up, link.faulty, link.paused) {
            (true, true, _) => "CONNECTED, BUT NOT ALL OF IT WORKS",
            (true, false, true) => "connected, SENDING IS PAUSED",
            (true, false, false) => "connected",
            (false, ..) => "NOT CONNECTED",
        };
        let since = prefixed(" since ", link.since.as_deref());
        line!(out, "{:<10} {state}{since}", link.name);
        if let Some(reason) = &link.reason {
            line!(out, "           {}", printable(reason));
        }
        // A PIN is read at the start only, and a refused one is not tried again.
        let pin = link
            .modem
            .as_ref()
            .is_some_and(|modem| modem.sim.starts_with("pin"));
        if !link.up && !pin {
            line!(
                out,
                "           It is tried again by itself; nothing needs a restart."
            );
        }
        if let Some(modem) = &link.modem {
            line!(out, "           {}", modem_in_words(modem));
        }
    }
    out
}

/// `pipepost modem list`
#[must_use]
pub(super) fn modems(modems: &[LinkStatus]) -> String {
    if modems.is_empty() {
        return "no modem is in use: add [[modem]] and a [[channel]] with kind = \"sms\"\n".to_owned();
    }
    links(modems)
}

/// A modem's state on one line.
fn modem_in_words(modem: &ModemStatus) -> String {
    let mut words = Vec::new();
    words.extend(modem.model.as_deref().map(printable));
    if !modem.sim.is_empty() {
        words.push(format!("SIM {}", modem.sim));
    }
    if !modem.network.is_empty() {
        let operator = modem
            .operator
            .as_deref()
            .map_or_else(String::new, |name| format!("{} ", printable(name)));
        words.push(format!("network {operator}({})", modem.network));
    }
    words.extend(modem.signal_dbm.map(|dbm| format!("signal {dbm} dBm")));
    if let (Some(used), Some(total)) = (modem.storage_used, modem.storage_total) {
        let full = if modem.storage_full { ", FULL" } else { "" };
        words.push(format!("memory {used} of {total}{full}"));
    }
    if modem.unreadable > 0 {
        words.push(format!("{} messages in it cannot be read", modem.unreadable));
    }
    if modem.incomplete > 0 {
        words.push(format!("{} messages wait for parts", modem.incomplete));
    }
    words.push(format!(
        "{} of {} parts sent today",
        modem.sent_today, modem.daily_cap
    ));
    words.join(", ")
}

/// `pipepost channels list`
#[must_use]
pub(super) fn channels(channels: &[ChannelStatus]) -> String {
    let mut out = String::new();
    for channel in channels {
        let since = prefixed(" since ", channel.since.as_deref());
        let reason = prefixed(": ", channel.reason.as_deref());
        let (id, name, state) = (&channel.id, printable(&channel.name), &channel.state);
        line!(
            out,
            "channel    {id} \"{name}\" ({}) {state}{since}{reason}",
            channel.provider_channel_id
        );
        let lane = &channel.lane;
        if lane.sent + lane.rejected + lane.unknown > 0 {
            let (sent, rejected, unknown) = (lane.sent, lane.rejected, lane.unknown);
            line!(
                out,
                "           answers since the start: {sent} sent, {rejected} refused, {unknown} unknown"
            );
        }
        if let Some(waiting) = &lane.waiting {
            line!(out, "           answers wait: {waiting}");
        }
    }
    out
}

/// `pipepost conversations list`
#[must_use]
pub(super) fn conversations(rows: &[ConversationRow]) -> String {
    let mut out = String::new();
    if rows.is_empty() {
        out.push_str("no conversations yet\n");
    }
    for row in rows {
        let last = row.last.as_deref().unwrap_or("-");
        let unseen = match (row.closed, row.seen) {
            (true, _) => "  (closed)",
            (false, true) => "",
            (false, false) => "  (not answered yet)",
        };
        line!(
            out,
            "{}  {last:<24}  {:<20}  {}{unseen}",
            row.id,
            called(row),
            row.channel
        );
    }
    out
}

/// Name and address, or the address alone.
fn called(row: &ConversationRow) -> String {
    let digits = row.name.replace(' ', "");
    if digits == row.address || row.name.is_empty() {
        return printable(&row.address);
    }
    printable(&format!("{} {}", row.name, row.address))
}

/// `pipepost contacts list`
#[must_use]
pub(super) fn contacts(page: &ContactsPage) -> String {
    let mut out = String::new();
    if page.contacts.is_empty() {
        out.push_str("the address book is empty: see `pipepost contacts import --help`\n");
    }
    for contact in &page.contacts {
        let number = international_form(&contact.address);
        line!(out, "{:<20}  {}", printable(&number), printable(&contact.name));
    }
    let shown = u64::try_from(page.contacts.len()).unwrap_or(u64::MAX);
    if page.next.is_some() && shown < page.total {
        line!(
            out,
            "{shown} of {}; `pipepost contacts export` has all",
            page.total
        );
    }
    out
}

/// `pipepost conversations show`
#[must_use]
pub(super) fn conversation(conversation: &Conversation) -> String {
    let mut out = String::new();
    let row = &conversation.row;
    line!(out, "{} on channel {} with {}", row.id, row.channel, called(row));
    line!(
        out,
        "participants: {}",
        printable(&conversation.participants.join(", "))
    );
    // Oldest first, as a conversation is read.
    for message in conversation.messages.iter().rev() {
        out.push_str(&message_line(message));
    }
    out
}

fn message_line(message: &MessageRow) -> String {
    let mut out = String::new();
    let arrow = if message.direction == "incoming" {
        "→"
    } else {
        "←"
    };
    let files = if message.files.is_empty() {
        String::new()
    } else {
        format!(" [{}]", message.files.join(", "))
    };
    let (text, files, state) = (
        printable(&message.text),
        printable(&files),
        printable(&message.state),
    );
    line!(
        out,
        "{} {arrow} {text}{files}  ({state}; {})",
        message.created_at,
        message.id
    );
    out
}

/// `pipepost queue`
#[must_use]
pub(super) fn queue(queue: &QueueView) -> String {
    let mut out = String::new();
    for (title, rows) in [
        ("to Pipedrive", &queue.to_uplink),
        ("to the hardware", &queue.to_hardware),
    ] {
        line!(
            out,
            "{title}: {}",
            if rows.is_empty() {
                "nothing waits"
            } else {
                "oldest first"
            }
        );
        for row in rows {
            out.push_str("  ");
            out.push_str(&message_line(row));
        }
    }
    out
}

/// `pipepost unmapped`
#[must_use]
pub(super) fn unmapped(rows: &[UnmappedRow]) -> String {
    let mut out = String::new();
    if rows.is_empty() {
        out.push_str("every packet could be read\n");
    }
    for row in rows {
        line!(
            out,
            "{} {} on {}",
            row.received_at,
            row.device,
            printable(&row.source)
        );
        line!(out, "  why: {}", printable(&row.reason));
        line!(out, "  payload: {}", printable(&row.payload));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Gateway;
    use crate::domain::{Address, Attempt, ChannelId, ConversationId, Timestamp};
    use crate::store::{NewOutgoing, Options, Store};

    #[test]
    fn a_customer_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a·[31mb··");
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(
            [bytes(12), bytes(1536), bytes(5 << 20)],
            ["12 B", "1.5 KiB", "5.0 MiB"]
        );
    }

    #[tokio::test]
    async fn an_update_that_pipedrive_refused_is_shown_with_the_message_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/minimal.toml");
        let loaded = crate::config::load(&crate::config::Request {
            file: Some(example),
            without_files: true,
            ..crate::config::Request::default()
        });
        let store = Store::open(Options::new(folder.path())).unwrap();
        let (channel, now) = ("sms".parse::<ChannelId>().unwrap(), Timestamp::from_unix_ms(1));
        let to = Address::new("+31612345678").unwrap();
        let conversation = store
            .find_or_start_conversation(channel.clone(), to, now)
            .await
            .unwrap();
        let outgoing = NewOutgoing {
            channel,
            conversation,
            text: "yes".to_owned(),
            attachments: Vec::new(),
            now,
            announce: false,
        };
        let id = store.insert_outgoing(outgoing).await.unwrap();
        store.start_attempt(id, now).await.unwrap();
        let outcome = Attempt::Rejected("no credit".to_owned());
        store.finish_attempt(id, outcome, false).await.unwrap();
        let item = store.reader().uplink_item(conversation).unwrap().unwrap();
        let reason = "Pipedrive refuses this message for good (400).".to_owned();
        store.uplink_failed(id, item.revision, reason).await.unwrap();

        let gateway = Gateway {
            config: std::sync::Arc::new(loaded.config.unwrap()),
            store,
            live: None,
        };
        let shown = conversation_text(&gateway, conversation).await;
        assert!(
            shown.contains("(failed: no credit; this state did not reach Pipedrive: Pipedrive refuses this message for good (400).; "),
            "{shown}"
        );
        let shown = status(&gateway.status().await.unwrap());
        for part in [
            "1 status update did not reach Pipedrive",
            "for good (400)",
            &format!("conversations show {conversation}"),
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }

    async fn conversation_text(gateway: &Gateway, id: ConversationId) -> String {
        conversation(&gateway.conversation(&id.to_string(), 10).await.unwrap())
    }
}
