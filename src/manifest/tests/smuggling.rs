//! Requests whose end two readers could see at different places, over raw TLS: what follows them is never answered
//! as a request of its own unless they are plain HTTP.

use super::*;

/// What came back on one connection until it was closed.
async fn statuses(gateway: &Gateway, bytes: &[u8]) -> Vec<u16> {
    let mut client = gateway.connect().await;
    client.send(bytes).await;
    let mut seen = Vec::new();
    // `answer` fails on what is no well-formed response, and when nothing comes and nothing is closed.
    while let Some(answer) = client.answer(true).await {
        seen.push(answer.status);
    }
    assert!(
        client.buffer.is_empty(),
        "half an answer: {:?}",
        String::from_utf8_lossy(&client.buffer)
    );
    seen
}

async fn gateway() -> Gateway {
    Gateway::start_with(|config| {
        config.listener.header_timeout = Duration::from_millis(500);
        config.listener.idle_timeout = Duration::from_millis(500);
        config.listener.body_timeout = Duration::from_millis(500);
    })
    .await
}

/// A request that would be answered with 200.
const CANARY: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
const FORM: &str = "--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nhi\r\n--x--\r\n";

/// A form with the right credentials and these headers and bytes for its body. Its conversation is missing: 400 with
/// an intact connection when it is read to its end.
fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /api/channels/gw-1-desk/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n{headers}\r\n\r\n{body}",
        credentials()
    )
}

fn chunked(chunks: &str) -> String {
    post("Transfer-Encoding: chunked", chunks)
}

fn length(value: &str) -> String {
    post(&format!("Content-Length: {value}"), FORM)
}

fn get(line: &str, headers: &str) -> String {
    format!("{line}\r\nHost: x\r\n{headers}\r\n")
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
async fn what_could_be_read_two_ways_is_answered_once_with_a_4xx_and_the_connection_ends() {
    let gateway = gateway().await;
    let form = FORM.len();
    let both = format!("Content-Length: {form}\r\nTransfer-Encoding: chunked");
    let te = |value: &str| post(&format!("Transfer-Encoding:{value}"), "0\r\n\r\n");
    let healthy = |headers: &str| get("GET /healthz HTTP/1.1", headers);
    let cases = [
        // Two lengths.
        ("length and chunks", post(&both, "0\r\n\r\n")),
        (
            "chunks and length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        ),
        (
            "length and chunks in odd case",
            post("content-length: 5\r\ntRANSFER-eNCODING: Chunked", "0\r\n\r\n"),
        ),
        (
            "two equal lengths",
            post("Content-Length: 5\r\nContent-Length: 5", "hello"),
        ),
        (
            "two lengths",
            post("Content-Length: 5\r\nContent-Length: 6", "hello"),
        ),
        ("a list of lengths", length("5, 5")),
        // Codings.
        ("chunked twice", te(" chunked\r\nTransfer-Encoding: chunked")),
        ("chunked, then another", te(" chunked, identity")),
        ("another, then chunked", te(" gzip, chunked")),
        ("a coding like chunked", te(" xchunked")),
        ("chunked in quotes", te(" \"chunked\"")),
        ("chunked with a parameter", te(" chunked;q=1")),
        ("an empty coding", te("")),
        ("chunked after a vertical tab", te("\x0bchunked")),
        ("chunked after a form feed", te(" \x0cchunked")),
        ("chunked on a folded line", te("\r\n chunked")),
        (
            "space before the colon",
            post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ),
        ("tab before the colon", post("Content-Length\t: 5", "hello")),
        (
            "a coding in HTTP/1.0",
            chunked("0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1),
        ),
        // Lengths that are no numbers, or none that anybody has.
        ("a negative length", length("-1")),
        ("a length with a sign", length(&format!("+{form}"))),
        ("a hexadecimal length", length("0x10")),
        ("a length with a point", length("5.0")),
        ("a length with an exponent", length("1e1")),
        ("a length with an underscore", length("1_0")),
        ("an empty length", length("")),
        ("a length with a space inside", length("1 0")),
        ("a length above all", length("18446744073709551616")),
        ("the greatest length", length("18446744073709551615")),
        ("a length of petabytes", length("9007199254740992")),
        // Chunks.
        ("a chunk size with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a negative chunk size", chunked("-5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size with a prefix", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        (
            "a chunk size above all",
            chunked("10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "the greatest chunk size",
            chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ),
        ("no chunk size", chunked("\r\nhello\r\n0\r\n\r\n")),
        ("a chunk longer than its size", chunked("2\r\nhello\r\n0\r\n\r\n")),
        (
            "a bare line feed after a chunk size",
            chunked("5\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a bare carriage return after a chunk size",
            chunked("5\rhello\r\n0\r\n\r\n"),
        ),
        (
            "a line feed in a chunk extension",
            chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "an endless chunk extension",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(200_000))),
        ),
        // Lines of the head.
        ("a folded header", healthy("X: a\r\n b\r\n")),
        (
            "a folded first header",
            "GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n".to_owned(),
        ),
        ("a bare carriage return in a value", healthy("X: a\rb\r\n")),
        ("a NUL in a value", healthy("X: a\0b\r\n")),
        ("a NUL in a name", healthy("X\0: a\r\n")),
        ("a NUL in the path", get("GET /health\0z HTTP/1.1", "")),
        ("an empty name", healthy(": a\r\n")),
        ("a line without a colon", healthy("nothing\r\n")),
        ("a name with brackets", healthy("X(y): a\r\n")),
        ("a space in the path", get("GET /health z HTTP/1.1", "")),
        ("a tab in the request line", get("GET\t/healthz\tHTTP/1.1", "")),
        ("no version", "GET /healthz\r\nHost: x\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /healthz\r\n\r\n".to_owned()),
        ("HTTP/1.2", get("GET /healthz HTTP/1.2", "")),
        ("HTTP/2.0", get("GET /healthz HTTP/2.0", "")),
        ("a version with more digits", get("GET /healthz HTTP/1.10", "")),
        ("a bad method", get("G(T /healthz HTTP/1.1", "")),
        ("two hosts", healthy("Host: y\r\n")),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (what, attack) in cases {
        let seen = statuses(&gateway, format!("{attack}{CANARY}").as_bytes()).await;
        if !matches!(*seen, [400..=499]) {
            wrong.push((what, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The HTTP library knows HTTP/2 by its preface and hangs up.
    let preface = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY}");
    assert!(statuses(&gateway, preface.as_bytes()).await.is_empty());
    assert_eq!(gateway.raw(CANARY.as_bytes()).await.status, 200);
    gateway.end().await;
}

#[tokio::test]
async fn plain_http_of_odd_form_is_answered_once_and_what_follows_is_the_next_request() {
    let gateway = gateway().await;
    let size = format!("{:x}", FORM.len());
    let cases = [
        ("a length", length(&FORM.len().to_string()), 400),
        ("a length with zeros", length(&format!("000{}", FORM.len())), 400),
        ("chunks", chunked(&format!("{size}\r\n{FORM}\r\n0\r\n\r\n")), 400),
        (
            "a chunk extension",
            chunked(&format!("{size};a=\"b\"\r\n{FORM}\r\n0\r\n\r\n")),
            400,
        ),
        (
            "a trailer",
            chunked(&format!("{size}\r\n{FORM}\r\n0\r\nContent-Length: 999\r\n\r\n")),
            400,
        ),
        (
            "zeros before a chunk size",
            chunked(&format!("00000{size}\r\n{FORM}\r\n0\r\n\r\n")),
            400,
        ),
        (
            "empty lines before",
            format!("\r\n\r\n{}", get("GET /healthz HTTP/1.1", "")),
            200,
        ),
        (
            "bare line feeds",
            "GET /healthz HTTP/1.1\nHost: x\n\n".to_owned(),
            200,
        ),
        (
            "a body where none is expected",
            get("GET /healthz HTTP/1.1", "Content-Length: 5\r\n") + "hello",
            200,
        ),
        (
            "an absolute target",
            get("GET https://x/healthz HTTP/1.1", ""),
            200,
        ),
        (
            "an absolute target elsewhere",
            get("GET http://169.254.169.254/api HTTP/1.1", ""),
            401,
        ),
        ("an asterisk", get("OPTIONS * HTTP/1.1", ""), 404),
        (
            "a method that nobody knows",
            get("BREW /healthz HTTP/1.1", ""),
            405,
        ),
        ("dots in the path", get("GET /api/../healthz HTTP/1.1", ""), 401),
        ("an escaped slash", get("GET /api%2fchannels HTTP/1.1", ""), 404),
        (
            "two slashes",
            get("GET //api/channels/gw-1-desk/templates HTTP/1.1", ""),
            404,
        ),
    ];
    let mut wrong = Vec::new();
    for (what, request, status) in cases {
        let seen = statuses(&gateway, format!("{request}{CANARY}").as_bytes()).await;
        if seen != [status, 200] {
            wrong.push((what, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    gateway.end().await;
}

#[tokio::test]
async fn http_1_0_is_answered_once_and_closed() {
    let gateway = gateway().await;
    for headers in ["", "Host: x\r\n"] {
        let request = format!("GET /healthz HTTP/1.0\r\n{headers}\r\n{CANARY}");
        assert_eq!(statuses(&gateway, request.as_bytes()).await, [200], "{headers:?}");
    }
    gateway.end().await;
}

#[tokio::test]
async fn what_follows_a_refused_body_is_not_a_request() {
    let gateway = gateway().await;
    // Without credentials, to a wrong path, of a wrong type, too large: refused before the body, which looks like a
    // request.
    let auth = format!("Authorization: {}\r\n", credentials());
    let large = 2 << 20;
    for (headers, path, body, status) in [
        (
            String::new(),
            "/api/channels/gw-1-desk/messages",
            CANARY.len(),
            401,
        ),
        (String::new(), "/nothing", CANARY.len(), 404),
        (
            auth.clone(),
            "/api/channels/gw-1-desk/messages",
            CANARY.len(),
            415,
        ),
        (
            format!("{auth}Content-Type: multipart/form-data; boundary=x\r\n"),
            "/api/channels/gw-1-desk/messages",
            large,
            413,
        ),
    ] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {body}\r\n\r\n{CANARY}");
        assert_eq!(
            statuses(&gateway, request.as_bytes()).await,
            [status],
            "{path} {status}"
        );
    }
    gateway.end().await;
}
