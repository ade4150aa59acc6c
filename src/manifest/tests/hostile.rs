use super::*;
use tokio::time::Instant;

fn quick(config: &mut Config) {
    config.listener.header_timeout = Duration::from_millis(400);
    config.listener.idle_timeout = Duration::from_millis(400);
}

fn health() -> Vec<u8> {
    request("GET", "/healthz", &[], b"")
}

#[tokio::test]
async fn a_head_that_drips_in_is_cut_off_in_time() {
    let gateway = Gateway::start_with(|config| {
        config.listener.header_timeout = Duration::from_millis(400);
    })
    .await;
    // As the first request of a connection, and as a later one.
    for first in [true, false] {
        let mut client = gateway.connect().await;
        if !first {
            client.send(&health()).await;
            assert_eq!(client.answer(true).await.unwrap().status, 200);
        }
        let start = Instant::now();
        client.send(b"GET /healthz HTTP/1.1\r\n").await;
        let dripping = async {
            loop {
                client.send(b"X: y\r\n").await;
                let wait = tokio::time::timeout(Duration::from_millis(50), client.more()).await;
                if wait == Ok(false) {
                    break;
                }
            }
        };
        tokio::time::timeout(LIMIT, dripping)
            .await
            .expect("the connection is closed");
        assert!(
            start.elapsed() >= Duration::from_millis(300),
            "{:?}",
            start.elapsed()
        );
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let gateway = Gateway::start_with(quick).await;
    let mut silent = gateway.connect().await;
    let mut idle = gateway.connect().await;
    idle.send(&health()).await;
    assert_eq!(idle.answer(true).await.unwrap().status, 200);
    let mut no_tls = TcpStream::connect(gateway.handle.address()).await.unwrap();
    assert!(silent.closes_silently().await);
    assert!(idle.closes_silently().await);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LIMIT, no_tls.read_to_end(&mut rest))
        .await
        .expect("an end");
    assert!(read.is_err() || rest.is_empty());
    assert_eq!(gateway.handle.metrics().broken_handshakes, 1);
    gateway.end().await;
}

#[tokio::test]
async fn plain_http_and_noise_on_the_tls_port_only_end_their_own_connection() {
    let gateway = Gateway::start().await;
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 500],
        b"\x16\x03\x01\x40\x00",
    ] {
        let mut socket = TcpStream::connect(gateway.handle.address()).await.unwrap();
        socket.write_all(noise).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _end = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest))
            .await
            .expect("an end");
    }
    assert_eq!(gateway.raw(&health()).await.status, 200);
    gateway.end().await;
}

#[tokio::test]
async fn when_all_places_are_taken_idle_connections_make_room() {
    let gateway = Gateway::start_with(|config| config.listener.max_connections = 3).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.connect().await;
        client.send(&health()).await;
        assert_eq!(client.answer(true).await.unwrap().status, 200);
        idle.push(client);
    }
    let start = Instant::now();
    assert_eq!(gateway.raw(&health()).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // The one that waited longest has gone, and only that one.
    let mut idle = idle.into_iter();
    assert!(idle.next().unwrap().closes_silently().await);
    assert_eq!(gateway.handle.metrics().displaced, 1);
    for mut client in idle {
        client.send(&health()).await;
        assert_eq!(client.answer(true).await.unwrap().status, 200);
    }
    gateway.end().await;
}

#[tokio::test]
async fn slow_arrivals_make_room_for_a_caller_and_are_not_waited_for() {
    let gateway = Gateway::start_with(|config| config.listener.max_connections = 3).await;
    let mut slow = Vec::new();
    // One in the handshake, one silent after it, one in its head.
    let no_tls = TcpStream::connect(gateway.handle.address()).await.unwrap();
    for begun in ["", "GET /healthz HTTP/1.1\r\n"] {
        let mut client = gateway.connect().await;
        client.send(begun.as_bytes()).await;
        slow.push(client);
    }
    eventually("all places are taken", || gateway.handle.metrics().open == 3).await;
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(gateway.call("GET", &conversations_path("desk")).await.status, 200);
    }
    // The limit for a head alone is five seconds.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(gateway.handle.metrics().displaced >= 1);
    assert_eq!(gateway.handle.metrics().turned_away, 0);
    drop((no_tls, slow));
    gateway.end().await;
}

#[tokio::test]
async fn when_every_place_is_busy_the_next_one_waits_and_is_then_turned_away() {
    let gateway = Gateway::start_with(|config| {
        config.listener.max_connections = 1;
        config.listener.header_timeout = Duration::from_millis(300);
    })
    .await;
    let mut busy = gateway.connect().await;
    let auth = credentials();
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("Content-Length", "100"),
    ];
    let begun = request("POST", "/api/channels/gw-1-desk/messages", &headers, b"--x\r\n");
    busy.send(&begun).await;
    eventually("the busy one is in", || {
        gateway.handle.metrics().last_from_pipedrive.is_some()
    })
    .await;
    let socket = TcpStream::connect(gateway.handle.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let refused = tokio::time::timeout(LIMIT, gateway.tls.connect(name, socket))
        .await
        .expect("an end");
    assert!(refused.is_err());
    assert_eq!(gateway.handle.metrics().turned_away, 1);
    assert_eq!(gateway.handle.metrics().open, 1);
    drop(busy);
    eventually("the place is free again", || gateway.handle.metrics().open == 0).await;
    assert_eq!(gateway.raw(&health()).await.status, 200);
    gateway.end().await;
}

#[tokio::test]
async fn a_body_whose_length_is_given_twice_is_refused_and_nothing_is_smuggled() {
    let gateway = Gateway::start().await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
    ] {
        for path in ["/healthz", "/api/channels/gw-1-desk/messages"] {
            let auth = credentials();
            let mut client = gateway.connect().await;
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\n{lengths}\r\n\r\n");
            client.send(format!("{head}0\r\n\r\n{smuggled}").as_bytes()).await;
            let answer = client.answer(true).await.expect("an answer");
            assert_eq!(answer.status, 400, "{lengths}");
            assert!(
                client.closes_silently().await,
                "{lengths}: there was a second answer"
            );
        }
    }
    gateway.end().await;
}

#[tokio::test]
async fn the_answer_to_an_ambiguous_length_has_the_failure_shape() {
    let gateway = Gateway::start().await;
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 5",
    ] {
        let text = format!("POST /healthz HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n");
        let answer = gateway.raw(text.as_bytes()).await;
        answer.assert_failure(400, "INVALID_REQUEST", lengths);
        assert_eq!(answer.header("connection"), "close");
    }
    gateway.end().await;
}

#[tokio::test]
async fn long_addresses_and_long_heads_are_refused_in_words() {
    let gateway = Gateway::start().await;
    let long = format!("/api/{}", "x".repeat(5000));
    gateway
        .call("GET", &long)
        .await
        .assert_failure(414, "URI_TOO_LONG", "address");
    let value = "x".repeat(20_000);
    let answer = gateway
        .raw(&request("GET", "/healthz", &[("X-Long", &value)], b""))
        .await;
    answer.assert_failure(431, "REQUEST_HEADERS_TOO_LARGE", "one long header");
    let many = vec![("X", "y"); 100];
    let answer = gateway.raw(&request("GET", "/healthz", &many, b"")).await;
    answer.assert_failure(431, "REQUEST_HEADERS_TOO_LARGE", "many headers");
    // Beyond the limits of the HTTP library itself there is a bare status.
    let value = "x".repeat(100_000);
    let answer = gateway
        .raw(&request("GET", "/healthz", &[("X-Long", &value)], b""))
        .await;
    assert_eq!(answer.status, 431);
    gateway.end().await;
}

#[tokio::test]
async fn what_is_not_http_gets_a_bare_400_and_the_end_of_the_connection() {
    let gateway = Gateway::start().await;
    for nonsense in [
        "nonsense\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let mut client = gateway.connect().await;
        client.send(nonsense.as_bytes()).await;
        if let Some(answer) = client.answer(true).await {
            assert_eq!(answer.status, 400, "{nonsense:?}");
        }
        assert!(client.closes_silently().await);
    }
    gateway.end().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let auth = credentials();
    let headers = [("Authorization", auth.as_str())];
    let mut bytes = health();
    bytes.extend(request("GET", "/nothing", &[], b""));
    bytes.extend(request("GET", "/api/channels/gw-1-desk/templates", &headers, b""));
    client.send(&bytes).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(client.answer(true).await.unwrap().status);
    }
    assert_eq!(seen, [200, 404, 200]);
    gateway.end().await;
}

#[tokio::test]
async fn a_stop_lets_the_answer_in_progress_out_and_closes_the_rest() {
    let gateway = Gateway::start().await;
    let mut idle = gateway.connect().await;
    idle.send(&health()).await;
    idle.answer(true).await.unwrap();
    let mut busy = gateway.connect().await;
    let auth = credentials();
    let body = "--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nhi\r\n--x--\r\n";
    let length = body.len().to_string();
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("Content-Length", &length),
    ];
    let bytes = request(
        "POST",
        "/api/channels/gw-1-desk/messages",
        &headers,
        body.as_bytes(),
    );
    let (begin, rest) = bytes.split_at(bytes.len() - 10);
    busy.send(begin).await;
    eventually("the request is in", || {
        gateway.handle.metrics().last_from_pipedrive.is_some()
    })
    .await;
    gateway.stop.send_replace(true);
    assert!(idle.closes_silently().await);
    assert!(TcpStream::connect(gateway.handle.address()).await.is_err());
    busy.send(rest).await;
    let answer = busy.answer(true).await.unwrap();
    answer.assert_failure(400, "INVALID_BODY", "no conversation");
    gateway.end().await;
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_connection_on() {
    let gateway = Gateway::start().await;
    let mut old = gateway.connect().await;
    let path = gateway.handle.certificate_file();
    std::fs::remove_file(&path).unwrap();
    gateway.handle.reload().unwrap();
    // The old connection goes on; a client that trusts only the old certificate gets no new one.
    old.send(&health()).await;
    assert_eq!(old.answer(true).await.unwrap().status, 200);
    let socket = TcpStream::connect(gateway.handle.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&path).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(
        TlsConnector::from(Arc::new(client))
            .connect(name, socket)
            .await
            .is_ok()
    );
    gateway.end().await;
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let gateway = Gateway::start().await;
    for head in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let answer = gateway.raw(head.as_bytes()).await;
        answer.assert_failure(400, "INVALID_REQUEST", head);
    }
    assert_eq!(gateway.raw(b"GET /healthz HTTP/1.0\r\n\r\n").await.status, 200);
    gateway.end().await;
}
