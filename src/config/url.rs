//! URLs of the configuration.

use hyper::http::Uri;

/// Host and port of a broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokerUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// What is wrong with a URL: message and hint.
pub(super) type Wrong = (String, Option<String>);

fn wrong(message: impl Into<String>, hint: &str) -> Wrong {
    (message.into(), (!hint.is_empty()).then(|| hint.to_owned()))
}

/// Scheme, authority and rest of a URL that has all of them.
fn parse(text: &str) -> Result<(Uri, String), Wrong> {
    let uri: Uri = text
        .parse()
        .map_err(|error| wrong(format!("not a URL: {error}"), ""))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong(
            "not a whole URL",
            "write it with its scheme, such as https://example.com",
        ));
    };
    if authority.as_str().contains('@') {
        let hint = "user names and passwords have keys of their own";
        return Err(wrong("a URL here must not hold a user name or password", hint));
    }
    if authority.host().is_empty() {
        return Err(wrong("the URL names no host", ""));
    }
    let after_host = authority
        .as_str()
        .rsplit_once(']')
        .map_or(authority.as_str(), |(_, rest)| rest);
    if after_host.contains(':') && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("the port must be a number from 1 to 65535", ""));
    }
    let scheme = scheme.to_ascii_lowercase();
    Ok((uri, scheme))
}

/// `mqtt://host[:1883]` or `mqtts://host[:8883]`.
pub(super) fn broker(text: &str) -> Result<BrokerUrl, Wrong> {
    let expected = "write mqtt://host:1883, or mqtts://host:8883 for TLS";
    let (uri, scheme) = match parse(text) {
        Ok(parsed) => parsed,
        Err((message, None)) => return Err(wrong(message, expected)),
        Err((message, Some(_))) if message == "not a whole URL" => return Err(wrong(message, expected)),
        Err(error) => return Err(error),
    };
    let tls = match scheme.as_str() {
        "mqtt" | "tcp" => false,
        "mqtts" | "ssl" | "tls" => true,
        "ws" | "wss" => return Err(wrong("MQTT over WebSocket is not supported", expected)),
        other => {
            return Err(wrong(
                format!("the scheme {other:?} is not one of a broker"),
                expected,
            ));
        }
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("the URL of a broker ends after its port", expected));
    }
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 8883 } else { 1883 });
    Ok(BrokerUrl { host, port, tls })
}

/// `https://…` without a query, returned without a trailing slash. `http` is let through for the own machine
/// when `or_local` says so.
pub(super) fn https(text: &str, or_local: bool) -> Result<String, Wrong> {
    let (uri, scheme) = parse(text)?;
    match scheme.as_str() {
        "https" => {}
        "http" if or_local && is_loopback(uri.host().unwrap_or_default()) => {}
        other => {
            return Err(wrong(
                format!("the URL must begin with https://, not {other}://"),
                "",
            ));
        }
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(wrong("the URL must end before any \"?\" or \"#\"", ""));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// An `https://…` address of a picture, query allowed.
pub(super) fn picture(text: &str) -> Result<(), Wrong> {
    match parse(text)?.1.as_str() {
        "https" => Ok(()),
        other => Err(wrong(
            format!("the URL must begin with https://, not {other}://"),
            "",
        )),
    }
}

/// Whether a host is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_broker_follows_its_scheme() {
        let tls = BrokerUrl {
            host: "b.example".to_owned(),
            port: 8883,
            tls: true,
        };
        assert_eq!(broker("mqtts://b.example"), Ok(tls));
        let plain = BrokerUrl {
            host: "::1".to_owned(),
            port: 1884,
            tls: false,
        };
        assert_eq!(broker("mqtt://[::1]:1884/"), Ok(plain));
    }

    #[test]
    fn urls_that_cannot_work_are_refused_in_words() {
        for (text, message) in [
            ("b.example:1883", "not a whole URL"),
            ("b.example", "not a whole URL"),
            ("mqtt://b.example:99999", "the port must be"),
            ("mqtt://b.example:0", "the port must be"),
            ("mqtt://u:p@b.example", "a URL here must not hold"),
            ("ws://b.example", "MQTT over WebSocket"),
            ("mqtt://b.example/topic", "the URL of a broker ends"),
        ] {
            let error = broker(text).unwrap_err();
            assert!(error.0.starts_with(message), "{text}: {error:?}");
        }
        assert!(https("http://example.com", true).is_err());
        assert_eq!(
            https("http://127.0.0.1:9/api/", true),
            Ok("http://127.0.0.1:9/api".to_owned())
        );
        assert!(https("https://example.com/?a=b", false).is_err());
    }
}
