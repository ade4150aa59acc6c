use super::*;
use crate::protocol::media;

async fn with_a_file(mime: &str, bytes: &[u8]) -> (Gateway, String) {
    let gateway = Gateway::start().await;
    let file = ReceivedAttachment {
        name: "Größe.pdf".to_owned(),
        mime: mime.to_owned(),
        bytes: bytes.to_vec(),
    };
    let id = gateway.receive_with("desk", "+15550001", "", vec![file]).await;
    let message = gateway
        .get(&format!("/api/channels/gw-1-desk/messages/{id}"))
        .await;
    let url = message["attachments"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(PUBLIC_URL).unwrap().to_owned();
    (gateway, path)
}

#[tokio::test]
async fn a_file_is_served_whole_by_head_and_in_parts() {
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let (gateway, path) = with_a_file("application/pdf", &content).await;
    let whole = gateway.raw(&request("GET", &path, &[], b"")).await;
    assert_eq!(whole.status, 200);
    assert!(whole.body == content);
    assert_eq!(whole.header("content-type"), "application/pdf");
    assert_eq!(
        whole.header("content-disposition"),
        "inline; filename=\"Gr__e.pdf\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe.pdf"
    );
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("accept-ranges"), "bytes");

    let named = gateway
        .raw(&request("HEAD", &format!("{path}/roof.pdf"), &[], b""))
        .await;
    assert_eq!((named.status, named.header("content-length")), (200, "1200000"));
    assert_eq!(named.header("content-type"), "application/pdf");

    let etag = whole.header("etag").to_owned();
    let range = ("Range", "bytes=100-199");
    let part = gateway
        .raw(&request("GET", &path, &[range, ("If-Range", &etag)], b""))
        .await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, "bytes 100-199/1200000")
    );
    assert_eq!(part.body, &content[100..200]);
    let tail = gateway
        .raw(&request("GET", &path, &[("Range", "bytes=-5")], b""))
        .await;
    assert_eq!((tail.status, &tail.body[..]), (206, &content[1_199_995..]));
    let other = gateway
        .raw(&request("GET", &path, &[range, ("If-Range", "\"x\"")], b""))
        .await;
    assert_eq!((other.status, other.body.len()), (200, 1_200_000));
    let beyond = gateway
        .raw(&request("GET", &path, &[("Range", "bytes=1200000-")], b""))
        .await;
    beyond.assert_failure(416, "RANGE_NOT_SATISFIABLE", "beyond the end");
    assert_eq!(beyond.header("content-range"), "bytes */1200000");
    gateway.end().await;
}

#[tokio::test]
async fn a_page_sent_by_a_customer_is_never_shown_as_one_of_ours() {
    let (gateway, path) = with_a_file("text/html", b"<script>").await;
    let answer = gateway.raw(&request("GET", &path, &[], b"")).await;
    assert!(answer.header("content-disposition").starts_with("attachment;"));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(
        answer.header("content-security-policy"),
        "default-src 'none'; sandbox"
    );
    gateway.end().await;
}

#[tokio::test]
async fn forged_expired_and_dangling_links_do_not_open() {
    let (gateway, path) = with_a_file("image/png", b"x").await;
    let secret = gateway.store.media_secret();
    let link = path.strip_prefix("/media/").unwrap();
    let id = media::verify(&secret, link, super::super::clock::now()).unwrap();
    let expired = media::sign(&secret, id, START);
    let forged = media::sign(&[1; 32], id, Timestamp::from_unix_ms(i64::MAX));
    let dangling = media::sign(
        &secret,
        crate::domain::AttachmentId(1),
        Timestamp::from_unix_ms(i64::MAX),
    );
    for link in [
        expired.as_str(),
        &forged,
        &dangling,
        "x",
        "%00",
        "..%2F..%2Fetc%2Fpasswd",
    ] {
        let path = format!("/media/{link}");
        gateway
            .raw(&request("GET", &path, &[], b""))
            .await
            .assert_failure(404, "NOT_FOUND", &path);
        assert_eq!(gateway.raw(&request("HEAD", &path, &[], b"")).await.status, 404);
    }
    std::fs::remove_file(gateway.dir.path().join("attachments").join(id.to_string())).unwrap();
    gateway
        .raw(&request("GET", &path, &[], b""))
        .await
        .assert_failure(404, "NOT_FOUND", "file gone");
    gateway.end().await;
}
