//! The words of each page, and with them the words of the log.

use crate::protocol::pipedrive::oauth::{Page, Refused, SCOPE};
use crate::uplink::ConnectError;

const AGAIN: &str = "On the gateway, run `pipepost connect` again and open the new address.";

/// No window is open, or not for this browser.
pub(super) fn no_window(with_state: bool) -> Page {
    if with_state {
        return Page::trouble(
            403,
            "This address is not valid any more",
            "It was used already, its time is over, or it belongs to another gateway. Nothing was changed.",
            AGAIN,
        );
    }
    Page::trouble(
        403,
        "The gateway does not expect you",
        "An installation that begins in the Marketplace is accepted only while the gateway's operator waits for it. \
         Nothing was changed.",
        "Ask the operator to run `pipepost connect`, then begin the installation again.",
    )
}

/// Another exchange is going on.
pub(super) fn busy() -> Page {
    Page::trouble(
        429,
        "One moment",
        "The gateway is busy with another connection.",
        "Look at the terminal with `pipepost connect`; if nothing happens there, try again in a minute.",
    )
}

/// Neither a code nor a refusal.
pub(super) fn malformed() -> Page {
    Page::trouble(
        400,
        "Nothing to do here",
        "This address is where Pipedrive sends a browser after somebody has allowed the gateway.",
        "On the gateway, run `pipepost connect`.",
    )
}

/// It takes long; the work goes on.
pub(super) fn slow() -> Page {
    Page {
        status: 200,
        title: "Pipedrive answers slowly".to_owned(),
        text: vec!["The gateway goes on with it; this page does not wait any longer.".to_owned()],
        next: vec!["Look at the terminal with `pipepost connect`, or run `pipepost status`.".to_owned()],
        ..Page::default()
    }
}

/// The work broke off.
pub(super) fn broken() -> Page {
    Page::trouble(
        500,
        "The gateway failed",
        "Connecting broke off because of a fault of the gateway. Its log says more.",
        AGAIN,
    )
}

/// `?error=…`: page, reason and remedy.
pub(super) fn denied(error: &str) -> (Page, String, &'static str) {
    if error == "user_denied" || error == "access_denied" {
        let reason = "The person at the browser did not allow the app (user_denied).".to_owned();
        let page = Page::trouble(
            403,
            "Not connected: you did not allow it",
            "The gateway was not given access to Pipedrive. Nothing was changed.",
            "If that was a mistake: run `pipepost connect` on the gateway again, open the new address and choose Allow.",
        );
        return (
            page,
            reason,
            "run `pipepost connect` again and choose Allow in the browser",
        );
    }
    let reason = format!("Pipedrive did not give a code ({error}).");
    let page = Page::trouble(
        400,
        "Not connected: Pipedrive refused",
        format!("Pipedrive's reason is: {error}. Nothing was changed."),
        "Look at the app in Pipedrive's Developer Hub, then run `pipepost connect` on the gateway again.",
    );
    (
        page,
        reason,
        "look at the app in Pipedrive's Developer Hub, then run `pipepost connect` again",
    )
}

/// The exchange did not work: page, reason and remedy.
pub(super) fn failed(problem: &ConnectError, redirect_uri: &str) -> (Page, String, String) {
    let (status, title, remedy) = match problem {
        ConnectError::NotConfigured => (
            500,
            "The gateway is not configured",
            "set pipedrive.client_id, the client secret and pipedrive.public_url, and restart the gateway".to_owned(),
        ),
        ConnectError::Refused(Refused::Grant(_)) => (
            400,
            "The code has expired",
            "a code works once and for five minutes: run `pipepost connect` again and open the new address at once"
                .to_owned(),
        ),
        ConnectError::Refused(Refused::Client(_)) => (
            500,
            "The client secret is wrong",
            "compare pipedrive.client_id and the client secret with the app in Pipedrive's Developer Hub, restart the \
             gateway and run `pipepost connect` again"
                .to_owned(),
        ),
        ConnectError::Refused(Refused::RedirectUri(_)) => (
            500,
            "The callback's address is not registered",
            format!(
                "in Pipedrive's Developer Hub set the app's callback URL to exactly {redirect_uri} (or correct \
                 pipedrive.public_url), then run `pipepost connect` again"
            ),
        ),
        ConnectError::NoScope | ConnectError::Refused(Refused::Scope(_)) => (
            403,
            "The app lacks a scope",
            format!(
                "in Pipedrive's Developer Hub give the app the scope {SCOPE} (and access to the base data of the \
                 user), then run `pipepost connect` again"
            ),
        ),
        ConnectError::Refused(Refused::Later { .. }) => (
            503,
            "Pipedrive does not answer",
            "run `pipepost connect` again when the gateway reaches Pipedrive (`pipepost status`)".to_owned(),
        ),
        ConnectError::Refused(Refused::Other(_)) | ConnectError::Incomplete(_) => (
            500,
            "Pipedrive refused",
            "look at the app in Pipedrive's Developer Hub, then run `pipepost connect` again".to_owned(),
        ),
        ConnectError::Store(_) => (
            500,
            "The gateway cannot store the connection",
            "look at the gateway's disk and log, then run `pipepost connect` again".to_owned(),
        ),
    };
    let mut reason = problem.to_string();
    if !reason.ends_with('.') {
        reason.push('.');
    }
    if let Some(first) = reason.get(..1).map(str::to_ascii_uppercase) {
        reason.replace_range(..1, &first);
    }
    let mut next = remedy.clone();
    if let Some(first) = next.get(..1).map(str::to_ascii_uppercase) {
        next.replace_range(..1, &first);
    }
    next.push('.');
    let page = Page::trouble(status, title, format!("{reason} Nobody was connected."), next);
    (page, reason, remedy)
}

/// Nothing could be registered: page and remedy.
pub(super) fn admin_only(who: &str, list: Vec<String>) -> (Page, String) {
    let remedy = "somebody with admin rights in the Pipedrive company has to connect: run `pipepost connect` again and \
                  open the address in his browser";
    let page = Page {
        status: 403,
        title: "Not connected: admin rights are needed".to_owned(),
        text: vec![format!(
            "Pipedrive does not let {who} register channels (ADMIN_ONLY). Nothing was kept."
        )],
        list,
        next: vec![format!(
            "Somebody with admin rights in Pipedrive has to do this: {AGAIN}"
        )],
        ..Page::default()
    };
    (page, remedy.to_owned())
}

/// It worked: page and what to do next.
pub(super) fn connected(who: &str, list: Vec<String>, again: bool, empty: bool) -> (Page, String) {
    let next = if empty {
        "No channel was free for this connection: `pipepost status` shows whose they are."
    } else {
        "Open the Messaging inbox in Pipedrive: the channels are there, and messages follow. You can close this page."
    };
    let title = if again { "Connected again" } else { "Connected" };
    let page = Page {
        status: 200,
        good: true,
        title: title.to_owned(),
        text: vec![format!("The gateway is connected to Pipedrive as {who}.")],
        list,
        next: vec![next.to_owned()],
    };
    (page, next.to_owned())
}
