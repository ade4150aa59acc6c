//! The OAuth callback as browsers and Pipedrive meet it.

use std::sync::Mutex;

use super::*;
use crate::manifest::{Callback, Pending};
use crate::protocol::pipedrive::manifest::Failure;
use crate::protocol::pipedrive::oauth::{Authorized, Page, Sharing, Uninstalled};

/// Remembers what it was told.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<Authorized>>,
    left: Mutex<Vec<Uninstalled>>,
    shared: Mutex<Vec<Sharing>>,
}

impl Callback for Recorder {
    fn authorized(&self, asked: Authorized) -> Pending<'_, Page> {
        self.asked.lock().unwrap().push(asked);
        Box::pin(async {
            Page {
                status: 200,
                good: true,
                title: "Connected".to_owned(),
                text: vec!["as <Ada>".to_owned()],
                ..Page::default()
            }
        })
    }

    fn uninstalled(&self, told: Uninstalled) -> Pending<'_, Result<(), Failure>> {
        self.left.lock().unwrap().push(told);
        Box::pin(async { Ok(()) })
    }

    fn sharing(&self, told: Sharing) -> Pending<'_, Result<(), Failure>> {
        self.shared.lock().unwrap().push(told);
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> &'static str {
        "reconnect needed"
    }
}

async fn start() -> (Gateway, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let callback = Some(Arc::clone(&recorder) as Arc<dyn Callback>);
    (Gateway::start_with_callback(|_| {}, callback).await, recorder)
}

const LEFT: &[u8] =
    br#"{"client_id":"client","company_id":12,"user_id":7,"timestamp":"2026-01-30T03:38:05.007Z"}"#;
const SHARED: &[u8] = br#"{"company_id":12,"user_id":7,"isShared":true}"#;

async fn tell(gateway: &Gateway, method: &str, authorization: Option<&str>, body: &[u8]) -> Answer {
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    gateway
        .raw(&request(method, "/oauth/callback", &headers, body))
        .await
}

#[tokio::test]
async fn a_browser_gets_a_page_that_nobody_keeps_frames_or_puts_scripts_into() {
    let (gateway, recorder) = start().await;
    let path = "/oauth/callback?code=abc&state=xyz";
    let answer = gateway.raw(&request("GET", path, &[], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    let html = String::from_utf8(answer.body).unwrap();
    assert!(html.contains("as &lt;Ada&gt;") && !html.contains("abc"), "{html}");
    assert!(matches!(
        recorder.asked.lock().unwrap().as_slice(),
        [Authorized::Code { code, state: Some(state) }] if code.expose() == "abc" && state.expose() == "xyz"
    ));
    gateway.end().await;
}

#[tokio::test]
async fn an_uninstall_and_a_change_of_sharing_need_the_apps_credentials() {
    let (gateway, recorder) = start().await;
    let wrong = format!("Basic {}", BASE64.encode(b"client:wrong"));
    for (method, body) in [("DELETE", LEFT), ("POST", SHARED)] {
        for authorization in [None, Some(wrong.as_str())] {
            let answer = tell(&gateway, method, authorization, body).await;
            answer.assert_failure(401, "UNAUTHORIZED", method);
        }
    }
    assert!(recorder.left.lock().unwrap().is_empty());
    assert!(recorder.shared.lock().unwrap().is_empty());
    for (method, body) in [("DELETE", LEFT), ("POST", SHARED)] {
        let answer = tell(&gateway, method, Some(&credentials()), body).await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(answer.json()["success"], true);
    }
    let left = recorder.left.lock().unwrap()[0].clone();
    assert_eq!((left.company_id, left.user_id, left.at), (12, 7, Some(START)));
    assert!(recorder.shared.lock().unwrap()[0].is_shared);
    gateway.end().await;
}

#[tokio::test]
async fn malformed_and_oversized_notices_are_refused_in_pipedrives_shape() {
    let (gateway, recorder) = start().await;
    let long = vec![b' '; 17 * 1024];
    for method in ["DELETE", "POST"] {
        for body in [b"".as_slice(), b"{", b"[]", br#"{"company_id":"x"}"#] {
            let answer = tell(&gateway, method, Some(&credentials()), body).await;
            answer.assert_failure(400, "INVALID_BODY", method);
        }
        let answer = tell(&gateway, method, Some(&credentials()), &long).await;
        answer.assert_failure(413, "PAYLOAD_TOO_LARGE", method);
    }
    assert!(recorder.left.lock().unwrap().is_empty());
    gateway.end().await;
}

#[tokio::test]
async fn health_says_how_the_connection_to_pipedrive_is() {
    let (gateway, _) = start().await;
    let answer = gateway.raw(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["pipedrive"], "reconnect needed");
    gateway.end().await;
}
