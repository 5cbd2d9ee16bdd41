use super::*;

fn parse(body: impl Into<Bytes>) -> ApiResult<Submission> {
    let rules = Rules {
        odd_ports: vec![25],
        ..Rules::default()
    };
    Submission::parse(&body.into(), &rules)
}

fn error(body: impl Into<Bytes>) -> String {
    format!("{:?}", parse(body).unwrap_err())
}

#[test]
fn input_is_kept_byte_for_byte() {
    for input in [
        "{}",
        "[ 1,  2.50, 1e400, -0 ]",
        "\"\\ud800 \\u0000 é\"",
        "false",
        "0",
        "{\"b\":1,\"a\":2,\"b\":3}",
        "12345678901234567890123456789012345678901234567890",
    ] {
        let body = format!("{{\"x\": {{\"input\": 1}}, \"input\" : {input} , \"y\": null}}");
        assert_eq!(parse(body).unwrap().input, input.as_bytes());
    }
}

#[test]
fn broken_bodies_are_explained() {
    let cases: [(&[u8], &str); 12] = [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"{\"input\": 1\n,}", "line 2 column 2"),
        (b"[1]", "should be a JSON object"),
        (b"\"x\"", "should be a JSON object"),
        (b"nope", "line 1 column 2"),
        (b"{\"input\": \"\xff\"}", "not UTF-8 at line 1 column 12"),
        (b"{\"input\": \"a\x00b\"}", "control character"),
        (b"{\"input\": 1, \"input\": 2}", "duplicate field `input`"),
        (b"{\"other\": 1}", "input is required"),
        (b"{\"input\": null}", "input is required"),
    ];
    for (body, expected) in cases {
        let error = error(body.to_vec());
        assert!(error.contains(expected), "{body:?}: {error}");
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let nested =
        |levels: usize| format!("{{\"input\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(error(nested(10_000)).contains("nested 10001 levels deep, allowed are 512"));
    assert!(parse(nested(511)).is_ok());
}

#[test]
fn policies() {
    let policy = |text: &str| parse(format!("{{\"input\":1,\"policy\":{text}}}"));
    let asked = policy("{\"executionTimeout\": 6000.0, \"ttl\": 10000, \"lowPriority\": true}");
    let expected = Asked {
        execution_timeout_ms: Some(6_000),
        ttl_ms: Some(10_000),
        low_priority: true,
    };
    assert_eq!(asked.unwrap().asked, expected);
    assert_eq!(policy("null").unwrap().asked, Asked::default());
    assert_eq!(policy("{\"ttl\": null}").unwrap().asked, Asked::default());
    for (text, expected) in [
        ("7", "policy is 7, it should be an object"),
        (
            "{\"ttl\": \"soon\"}",
            "policy.ttl is \\\"soon\\\", it should be a whole number",
        ),
        (
            "{\"executionTimeout\": 1.5}",
            "policy.executionTimeout is 1.5",
        ),
        (
            "{\"lowPriority\": 1}",
            "policy.lowPriority is 1, it should be true or false",
        ),
    ] {
        let error = format!("{:?}", policy(text).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn webhooks() {
    let webhook = |text: &str| parse(format!("{{\"input\":1,\"webhook\":{text}}}"));
    let expected = Some(Webhook {
        url: "https://Hooks.example.org/x?y=1".to_owned(),
        host: "hooks.example.org:443".to_owned(),
    });
    let url = "\"https://Hooks.example.org/x?y=1\"";
    assert_eq!(webhook(url).unwrap().webhook, expected);
    assert_eq!(webhook("null").unwrap().webhook, None);
    let alias = parse(format!("{{\"input\":1,\"webhookV2\":{url}}}"));
    assert_eq!(alias.unwrap().webhook, expected);
    for (bad, why) in [
        ("\"\"", "it should be an http or https URL in a string"),
        ("7", "it should be an http or https URL in a string"),
        ("\"ftp://x.example/\"", "it should be an http or https URL"),
        ("\"https://u:p@x.example/\"", "not hold a user name"),
        (
            "\"http://x.example:25/\"",
            "port 25 is for another protocol",
        ),
        ("\"http://0x7f.1/\"", "127.0.0.1 is a loopback address"),
        ("\"http://localhost/\"", "localhost is this machine"),
    ] {
        let error = format!("{:?}", webhook(bad).unwrap_err());
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn s3_configs_name_what_is_missing_and_show_nothing() {
    let s3 = |text: &str| parse(format!("{{\"input\":1,\"s3Config\":{text}}}"));
    let whole =
        "{\"accessId\":\"a\",\"accessSecret\":\"hush\",\"bucketName\":\"b\",\"endpointUrl\":\"c\"}";
    assert_eq!(s3(whole).unwrap().s3_config.unwrap(), whole.as_bytes());
    let missing = whole.replace("bucketName", "bucket");
    let error = format!("{:?}", s3(&missing).unwrap_err());
    assert!(
        error.contains("s3Config.bucketName is missing") && !error.contains("hush"),
        "{error}"
    );
    assert!(s3("[]").is_err());
    assert!(s3(&whole.replace("\"hush\"", "7")).is_err());
}
