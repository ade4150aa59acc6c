//! Commands for modems.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Failure;
use super::answers::{Done, LinkStatus, UssdRequest};
use super::gateway::Gateway;
use crate::config::Channel;
use crate::domain::Address;
use crate::driver::sms::UssdJob;

/// For the network's answer to a USSD code and all that waits before it.
const USSD_LIMIT: Duration = Duration::from_secs(150);

impl Gateway {
    /// The modems with what is known of them.
    pub async fn modems(&self) -> Result<Vec<LinkStatus>, Failure> {
        let mut links = self.status().await?.links;
        links.retain(|link| link.modem.is_some());
        Ok(links)
    }

    /// Sends a USSD code through a modem and waits for the network's answer.
    pub async fn ussd(&self, name: &str, request: UssdRequest) -> Result<Done, Failure> {
        let links = &self.live()?.links;
        let modem = links
            .iter()
            .find(|link| link.name.strip_prefix("modem ") == Some(name))
            .and_then(|link| link.modem.as_ref());
        let Some(modem) = modem else {
            let known: Vec<&str> = links
                .iter()
                .filter_map(|link| link.name.strip_prefix("modem "))
                .collect();
            let hint = match known.as_slice() {
                [] => "no modem is configured".to_owned(),
                known => format!("modems in use: {}", known.join(", ")),
            };
            return Err(Failure::not_found(&format!("there is no modem {name:?}")).with_hint(&hint));
        };
        let (answer, answered) = oneshot::channel();
        let code = request.code;
        if modem.ussd.try_send(UssdJob { code, answer }).is_err() {
            return Err(Failure::conflict("other codes wait for their answers"));
        }
        match tokio::time::timeout(USSD_LIMIT, answered).await {
            Ok(Ok(Ok(message))) => Ok(Done { message }),
            Ok(Ok(Err(reason))) => Err(Failure::conflict(&reason)),
            Ok(Err(_)) => Err(Failure::conflict("the gateway is stopping")),
            Err(_) => Err(Failure::conflict("the modem did not get to it in time")),
        }
    }

    /// Whom a person means who writes an address for a channel: numbers of an SMS channel in the form in which
    /// customers' numbers are stored, so that the message joins their conversation.
    pub(super) fn recipient(&self, channel: &Channel, to: &str) -> Option<Address> {
        let modem = self
            .config
            .modems
            .iter()
            .find(|modem| channel.modem.as_ref() == Some(&modem.name));
        match modem {
            Some(modem) => Address::new(modem.home.recipient(to)?.as_str()),
            None => Address::new(to),
        }
    }
}
