//! What the log says of deliveries, and links to files.

use log::{debug, error, info, warn};

use super::desk::Work;
use super::installation::{Hold, HoldKind};
use crate::domain::{ChannelId, InstallationId, Timestamp};
use crate::protocol::media;
use crate::queue::to_hardware::Links;
use crate::store::UplinkItem;
use crate::uplink::{Link, Outcome};

/// Links to a message's files; none without a public address.
pub(super) fn link_files(links: &Links, item: &UplinkItem, now: Timestamp) -> Vec<Link> {
    let Some(public_url) = &links.public_url else {
        if !item.message.attachments.is_empty() {
            warn!(message_id = item.message.id.to_string().as_str(), files = item.message.attachments.len();
                "Files are not shown in Pipedrive: set pipedrive.public_url, so that they can be linked");
        }
        return Vec::new();
    };
    let lifetime = i64::try_from(links.lifetime.as_millis()).unwrap_or(i64::MAX);
    let expires = now.plus_ms(lifetime);
    let link = |attachment: &crate::domain::Attachment| Link {
        attachment: attachment.id,
        url: media::url(public_url, &links.secret, attachment.id, expires),
    };
    item.message.attachments.iter().map(link).collect()
}

pub(super) fn report(channel: &ChannelId, work: Work, outcome: &Outcome) {
    let channel = channel.as_str();
    let message = match work {
        Work::Register => "channel".to_owned(),
        Work::Deliver(id) if log::log_enabled!(log::Level::Debug) || *outcome != Outcome::Accepted => {
            id.to_string()
        }
        Work::Deliver(_) => return,
    };
    let message_id = message.as_str();
    match (work, outcome) {
        (Work::Register, Outcome::Accepted) => info!(channel; "Registered a channel with Pipedrive"),
        (Work::Deliver(_), Outcome::Accepted) => debug!(message_id, channel; "Pipedrive accepted a message"),
        (_, Outcome::Rejected { reason }) => {
            error!(message_id, channel, reason = reason.as_str(); "Pipedrive refused a message for good");
        }
        (_, Outcome::ChannelUnlinked { reason }) => {
            error!(channel, reason = reason.as_str(); "A channel is not linked to Pipedrive any more");
        }
        (_, Outcome::Retry { reason, .. } | Outcome::NotAuthorized { reason } | Outcome::Gone { reason }) => {
            debug!(message_id, channel, reason = reason.as_str(); "A message waits");
        }
    }
}

/// Says once when a hold begins, changes its kind or ends.
pub(super) fn report_hold(installation: &InstallationId, hold: Option<&Hold>, before: Option<HoldKind>) {
    if before == hold.map(|hold| hold.kind) {
        return;
    }
    let installation = installation.as_str();
    match hold {
        None => info!(installation; "Messages flow to Pipedrive again"),
        Some(hold) if matches!(hold.kind, HoldKind::Trouble | HoldKind::Day) => {
            warn!(installation, reason = hold.reason.as_str(); "Messages to Pipedrive wait");
        }
        Some(hold) => {
            error!(installation, reason = hold.reason.as_str(); "Messages to Pipedrive wait until a person helps");
        }
    }
}

/// Says once a day that the gateway's own limit is reached.
pub(super) fn report_spent(installation: &InstallationId) {
    warn!(installation = installation.as_str();
        "Messages to Pipedrive wait until midnight UTC: pipedrive.daily_budget is spent for today. Everything is kept; \
         a higher limit takes effect after a restart");
}
