use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::scripted::{Act, Authority, Server, answer, json};
use super::*;

/// Long enough for a loaded machine, short enough to wait for: tests of a missing answer wait this long.
const TIMEOUT: Duration = Duration::from_millis(1500);

fn client() -> Client {
    Client::new(&Options {
        timeout: TIMEOUT,
        ..Options::default()
    })
    .unwrap()
}

fn trusting(authority: &Authority) -> Client {
    Client::new(&Options {
        ca_file: Some(authority.file()),
        timeout: Duration::from_secs(20),
        ..Options::default()
    })
    .unwrap()
}

fn post<'a>(url: &'a str, token: Option<&'a Secret>) -> Request<'a> {
    Request {
        method: Method::Post,
        url,
        bearer: token,
        basic: None,
        body: Some(("application/json", b"{}")),
    }
}

fn failure(client: &Client, url: &str) -> FailureKind {
    client.send(&post(url, None)).unwrap_err().kind
}

#[test]
fn a_form_carries_name_and_password_as_basic_credentials() {
    let server = Server::plain(|_, _| json(200, "{}"));
    let password = Secret::new("s:e cret".to_owned());
    let url = server.url();
    let request = Request {
        basic: Some(("client", &password)),
        body: Some((FORM, b"grant_type=refresh_token")),
        ..post(&url, None)
    };
    client().send(&request).unwrap();
    let arrived = server.requests.lock().unwrap()[0].clone();
    assert_eq!(
        arrived.header("authorization"),
        Some("Basic Y2xpZW50OnM6ZSBjcmV0")
    );
    assert_eq!(arrived.header("content-type"), Some(FORM));
    assert_eq!(arrived.body, b"grant_type=refresh_token");
    let shown = format!("{request:?}");
    assert!(
        !shown.contains("s:e cret") && !shown.contains("103, 114, 97, 110, 116"),
        "{shown}"
    );
}

#[test]
fn a_request_carries_token_agent_type_and_length() {
    let server = Server::plain(|_, _| json(200, "{}"));
    let token = Secret::new("t0ken".to_owned());
    let response = client().send(&post(&server.url(), Some(&token))).unwrap();
    assert_eq!((response.status, response.complete), (200, true));
    let arrived = server.requests.lock().unwrap()[0].clone();
    assert_eq!(arrived.line, "POST / HTTP/1.1");
    assert_eq!(arrived.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(arrived.header("user-agent"), Some(USER_AGENT));
    assert_eq!(arrived.header("content-type"), Some("application/json"));
    assert_eq!(arrived.header("content-length"), Some("2"));
}

#[test]
fn requests_one_after_the_other_share_a_connection() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("localhost", (2000, 2100)), |_, _| {
        json(200, "{}")
    });
    let client = trusting(&authority);
    for _ in 0..5 {
        assert_eq!(client.send(&post(&server.url(), None)).unwrap().status, 200);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert_eq!(server.count(), 5);
}

#[test]
fn a_redirect_is_not_followed() {
    let server = Server::plain(|_, _| answer(302, "text/html", "Location: /elsewhere\r\n", ""));
    let response = client().send(&post(&server.url(), None)).unwrap();
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("/elsewhere"));
    assert_eq!(server.count(), 1);
}

#[test]
fn an_endless_answer_is_cut_off() {
    let server = Server::plain(|_, _| json(200, &"x".repeat(5000)));
    let client = Client::new(&Options {
        max_body: 1000,
        ..Options::default()
    })
    .unwrap();
    let response = client.send(&post(&server.url(), None)).unwrap();
    assert_eq!((response.body.len(), response.complete), (1000, false));
}

#[test]
fn an_answer_that_breaks_off_keeps_its_status_and_says_so() {
    let server = Server::plain(|_, _| {
        Act::WriteAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"success\":".to_vec())
    });
    let response = client().send(&post(&server.url(), None)).unwrap();
    assert_eq!((response.status, response.complete), (200, false));
    assert_eq!(response.body, b"{\"success\":");
}

#[test]
fn a_name_that_does_not_exist_is_told() {
    // `.invalid` never exists (RFC 6761); offline the look-up fails as well.
    let client = Client::new(&Options::default()).unwrap();
    assert!(matches!(
        failure(&client, "http://pipepost.invalid/"),
        FailureKind::NameNotFound | FailureKind::ConnectTimeout
    ));
}

#[test]
fn a_closed_port_is_told() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(
        failure(&client(), &format!("http://{address}/")),
        FailureKind::Refused
    );
}

#[test]
fn an_address_that_is_none_is_told() {
    for url in ["no address", "http://", "/path"] {
        assert_eq!(failure(&client(), url), FailureKind::BadAddress, "{url}");
    }
}

#[test]
fn a_missing_answer_is_a_timeout_after_the_request_was_sent() {
    let server = Server::plain(|_, _| Act::Silence);
    let begun = Instant::now();
    assert_eq!(failure(&client(), &server.url()), FailureKind::AnswerTimeout);
    assert!(begun.elapsed() >= TIMEOUT);
    assert_eq!(server.count(), 1);
}

#[test]
fn a_handshake_that_hangs_is_a_timeout_before_anything_was_sent() {
    // A listener that never accepts: the system connects, TLS waits for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    assert_eq!(failure(&client(), &url), FailureKind::ConnectTimeout);
}

#[test]
fn a_reset_and_a_close_before_the_answer_are_told() {
    let server = Server::plain(|_, _| Act::Reset);
    assert_eq!(failure(&client(), &server.url()), FailureKind::Broken);
    let server = Server::plain(|_, _| Act::WriteAndClose(Vec::new()));
    assert_eq!(failure(&client(), &server.url()), FailureKind::Broken);
    let server = Server::plain(|_, _| Act::WriteAndClose(b"HTTP/1.1 200 O".to_vec()));
    assert_eq!(failure(&client(), &server.url()), FailureKind::Broken);
}

#[test]
fn something_that_is_not_http_is_told() {
    let server = Server::plain(|_, _| Act::WriteAndClose(b"220 mail.example ESMTP\r\n\r\n".to_vec()));
    assert_eq!(failure(&client(), &server.url()), FailureKind::NotHttp);
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let server = Server::plain(move |_, _| Act::WriteAndClose(huge.clone().into_bytes()));
    assert_eq!(failure(&client(), &server.url()), FailureKind::NotHttp);
}

#[test]
fn each_fault_of_a_certificate_is_told() {
    let authority = Authority::new();
    let client = trusting(&authority);
    for (name, years, expected) in [
        ("other.example", (2000, 2100), FailureKind::WrongName),
        ("localhost", (2000, 2001), FailureKind::Expired),
        ("localhost", (2090, 2100), FailureKind::NotYetValid),
    ] {
        let server = Server::tls(authority.server(name, years), |_, _| json(200, "{}"));
        assert_eq!(failure(&client, &server.url()), expected, "{name} {years:?}");
        assert_eq!(server.count(), 0);
    }
    let stranger = Authority::new();
    let server = Server::tls(stranger.server("localhost", (2000, 2100)), |_, _| json(200, "{}"));
    assert_eq!(failure(&client, &server.url()), FailureKind::UnknownIssuer);
    let public_only = Client::new(&Options::default()).unwrap();
    assert_eq!(failure(&public_only, &server.url()), FailureKind::UnknownIssuer);
}

#[test]
fn a_server_without_tls_is_told() {
    let server = Server::plain(|_, _| json(200, "{}"));
    let url = server.url().replace("http://", "https://");
    let client = Client::new(&Options::default()).unwrap();
    let kind = failure(&client, &url);
    assert!(
        matches!(
            kind,
            FailureKind::Tls | FailureKind::ConnectTimeout | FailureKind::Broken
        ),
        "{kind:?}"
    );
}

#[test]
fn a_token_with_a_line_break_is_refused_without_showing_it() {
    let token = Secret::new("sec\nret".to_owned());
    let failure = client()
        .send(&post("http://localhost:1/", Some(&token)))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadToken);
    assert!(!failure.to_string().contains("sec\n"));
}

#[test]
fn a_file_of_trusted_certificates_that_holds_none_is_an_error_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.pem");
    let options = Options {
        ca_file: Some(path.clone()),
        ..Options::default()
    };
    let missing = Client::new(&options).err().unwrap().to_string();
    assert!(
        missing.starts_with("cannot read the trusted certificates in "),
        "{missing}"
    );
    std::fs::write(&path, "nothing").unwrap();
    let empty = Client::new(&options).err().unwrap().to_string();
    assert!(
        empty.ends_with("empty.pem holds no PEM certificate that can be trusted"),
        "{empty}"
    );
}

#[test]
fn head_and_body_of_a_request_leave_together() {
    use std::io::Write;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut first = [0; 4096];
        let read = peer.read(&mut first).unwrap();
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        String::from_utf8(first[..read].to_vec()).unwrap()
    });
    client().send(&post(&url, None)).unwrap();
    let first = server.join().unwrap();
    assert!(
        first.starts_with("POST /x HTTP/1.1\r\n") && first.ends_with("\r\n\r\n{}"),
        "{first}"
    );
}

#[test]
fn a_body_of_any_length_arrives_behind_its_head() {
    let server = Server::plain(|_, _| json(200, "{}"));
    let url = server.url();
    // Around the length of the buffers, less a head of about 150 bytes, and far beyond.
    let lengths = [0, 1, BUFFER - 200, BUFFER - 100, BUFFER, BUFFER + 1, 5 * BUFFER];
    for length in lengths {
        let body: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let request = Request {
            body: Some(("application/json", &body)),
            ..post(&url, None)
        };
        assert_eq!(client().send(&request).unwrap().status, 200, "{length}");
        let arrived = server.requests.lock().unwrap().last().unwrap().clone();
        assert!(arrived.body == body, "{length}");
    }
    let request = Request {
        method: Method::Get,
        body: None,
        ..post(&url, None)
    };
    assert_eq!(client().send(&request).unwrap().status, 200);
}
