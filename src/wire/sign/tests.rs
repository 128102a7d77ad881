//! Known answers, computed apart from this code with Python's `hmac` and `hashlib`; and vectors that lie
//! beside the checkout, where they do.

use std::path::Path;

use serde_json::Value;

use super::*;
use crate::base::secret::Secret;

fn keys(access_key: &str, secret_key: &str, token: Option<&str>) -> AwsKeys {
    AwsKeys {
        access_key: Secret::new(access_key),
        secret_key: Secret::new(secret_key),
        session_token: token.map(Secret::new),
        region: String::new(),
    }
}

fn scope<'a>(region: &'a str, service: &'a str, wall: u64) -> Scope<'a> {
    Scope { region, service, wall: UnixMs(wall) }
}

fn signature(signed: &Signed) -> &str {
    signed.authorization.rsplit_once('=').unwrap().1
}

const LEAP: u64 = 1_709_251_199_000;

fn converse<'a>(path: &'a str, fields: &'a [(&'a str, &'a [u8])]) -> Request<'a> {
    Request { method: "POST", path, query: "", fields, body: b"{\"x\":1}" }
}

const FIELDS: &[(&str, &[u8])] = &[("host", b"h.test"), ("content-type", b"application/json")];

#[test]
fn known_answers() {
    let scope_a = scope("us-west-2", "bedrock", LEAP);
    let request = converse("/model/a.b-v1%3A0/converse", FIELDS);
    let signed = sign(&request, &keys("AK1", "s3cr3t/+", None), &scope_a);
    assert_eq!(signed.date, "20240229T235959Z");
    assert_eq!(
        signed.authorization,
        "AWS4-HMAC-SHA256 Credential=AK1/20240229/us-west-2/bedrock/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, \
         Signature=4af1213407b008ee33a9576fa91f1e45680acec9763f4d5ea8f1609a74978d89"
    );
    let request = converse("/model/a.b-v1:0/converse", FIELDS);
    let signed = sign(&request, &keys("AK1", "s3cr3t/+", Some("tok==")), &scope_a);
    assert!(signed.authorization.contains("=content-type;host;x-amz-date;x-amz-security-token, "));
    assert_eq!(
        signature(&signed),
        "b2778fa99c9b2d6423fff8a30b86adfd35cd718bde4ad66f30b4e403f43a0fa9"
    );
    let request = Request {
        method: "GET",
        path: "/a b~/",
        query: "b=2&a=1&b=1&c",
        fields: &[("Host", b"h.test:81"), ("X-Long", b"  a   b  ")],
        body: b"",
    };
    let signed =
        sign(&request, &keys("AK2", "k", None), &scope("eu-central-1", "s", 1_767_139_200_999));
    assert_eq!(signed.date, "20251231T000000Z");
    assert_eq!(
        signature(&signed),
        "89e517b9aad383d5f9ef266c4f91fe633500352ddfd6806aba4c0736da03289a"
    );
    // A secret that is longer than a block of the hash.
    let request = Request {
        method: "PUT",
        path: "/",
        query: "",
        fields: &[("host", b"h")],
        body: "\u{fc}".as_bytes(),
    };
    let signed = sign(&request, &keys("AK2", &"x".repeat(100), None), &scope("r", "s", 0));
    assert_eq!(
        signature(&signed),
        "feb503f5d82fe65cf008d0af07f179ee94ccb83a5532e25e435212f23a16325a"
    );
}

#[test]
fn whatever_is_signed_counts() {
    let base = || converse("/model/m/converse", FIELDS);
    let pair = || keys("AK", "secret", None);
    let at = scope("us-east-1", "bedrock", LEAP);
    let of = |request: &Request<'_>, pair: &AwsKeys, at: &Scope<'_>| {
        signature(&sign(request, pair, at)).to_owned()
    };
    let mut seen = vec![of(&base(), &pair(), &at)];
    seen.push(of(&Request { method: "PUT", ..base() }, &pair(), &at));
    seen.push(of(&Request { path: "/model/n/converse", ..base() }, &pair(), &at));
    seen.push(of(&Request { query: "a=1", ..base() }, &pair(), &at));
    seen.push(of(&Request { fields: &FIELDS[..1], ..base() }, &pair(), &at));
    seen.push(of(&Request { body: b"{\"x\":2}", ..base() }, &pair(), &at));
    seen.push(of(&base(), &keys("AK", "secret", Some("t")), &at));
    seen.push(of(&base(), &keys("AK", "secreu", None), &at));
    seen.push(of(&base(), &pair(), &scope("us-east-2", "bedrock", LEAP)));
    seen.push(of(&base(), &pair(), &scope("us-east-1", "s3", LEAP)));
    seen.push(of(&base(), &pair(), &scope("us-east-1", "bedrock", LEAP + 1000)));
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
    // Only whole seconds are sent, and the order of fields is not.
    let turned = [FIELDS[1], FIELDS[0]];
    let again = of(&Request { fields: &turned, ..base() }, &pair(), &at);
    assert_eq!(again, of(&base(), &pair(), &scope("us-east-1", "bedrock", LEAP + 999)));
}

#[test]
fn nothing_of_a_secret_is_told() {
    let request = converse("/model/m/converse", FIELDS);
    let pair = keys("AKID", "very-secret", Some("very-token"));
    let signed = sign(&request, &pair, &scope("us-east-1", "bedrock", LEAP));
    let told = format!("{signed:?} {pair:?}");
    assert!(told.contains("AKID/") && !told.contains("very-"), "{told}");
}

#[test]
fn days_follow_one_another() {
    for (ms, expected) in [
        (0, "19700101T000000Z"),
        (951_782_400_000, "20000229T000000Z"),
        (951_868_800_000, "20000301T000000Z"),
        (4_107_542_399_000, "21000228T235959Z"),
        (4_107_542_400_000, "21000301T000000Z"),
    ] {
        assert_eq!(date(UnixMs(ms)), expected);
    }
    let (mut last, mut days_of_month) = (civil(0), 1);
    for day in 1..150_000 {
        let (year, month, of_month) = civil(day);
        if of_month == 1 {
            let long = matches!(last.1, 1 | 3 | 5 | 7 | 8 | 10 | 12);
            let leap = last.0 % 4 == 0 && (last.0 % 100 != 0 || last.0 % 400 == 0);
            let expected = match last.1 {
                2 => 28 + u64::from(leap),
                _ => 30 + u64::from(long),
            };
            assert_eq!(days_of_month, expected, "{last:?}");
            assert_eq!(
                (year, month),
                if last.1 == 12 { (last.0 + 1, 1) } else { (last.0, last.1 + 1) }
            );
        } else {
            assert_eq!((year, month, of_month), (last.0, last.1, last.2 + 1));
        }
        (last, days_of_month) = ((year, month, of_month), of_month);
    }
}

#[test]
fn segments_are_encoded_and_paths_once_more() {
    let arn = "arn:aws:bedrock:eu-west-1:0:inference-profile/a_b~c";
    let segment = "arn%3Aaws%3Abedrock%3Aeu-west-1%3A0%3Ainference-profile%2Fa_b~c";
    assert_eq!(encode_segment(arn), segment);
    assert_eq!(
        path(&format!("/model/{segment}")),
        format!("/model/{}", segment.replace('%', "%25"))
    );
    assert_eq!(path("/model/a:0"), "/model/a%3A0");
    assert_eq!(path(""), "/");
    assert_eq!(encode_segment("\u{fc} \r"), "%C3%BC%20%0D");
}

fn vectors(name: &str) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/vectors");
    let Ok(text) = std::fs::read_to_string(folder.join(name)) else {
        #[allow(clippy::print_stderr, reason = "a test that runs on nothing says so")]
        {
            eprintln!("skipped: no {name} beside the checkout");
        }
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// Authority, path and query.
fn parts(url: &str) -> (&str, &str, &str) {
    let rest = url.split_once("://").unwrap().1;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let slash = rest.find('/').unwrap();
    (&rest[..slash], &rest[slash..], query)
}

/// The reverse of `date`, by search: it is one of the days since 1970.
fn wall(stamp: &str) -> u64 {
    let day = (0..100_000).find(|day| date(UnixMs(day * 86_400_000)).starts_with(&stamp[..8]));
    let number = |at: usize| stamp[at..at + 2].parse::<u64>().unwrap();
    (day.unwrap() * 86_400 + number(9) * 3600 + number(11) * 60 + number(13)) * 1000
}

#[test]
fn vectors_of_the_vendor() {
    let Some(file) = vectors("sigv4-bedrock.json") else { return };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 5);
    for case in cases {
        let (url, body, method) = (text(&case["url"]), text(&case["body"]), text(&case["method"]));
        let (authority, path, query) = parts(&url);
        let mut fields: Vec<(&str, &[u8])> = vec![("host", authority.as_bytes())];
        for (name, value) in case["headers"].as_object().unwrap() {
            fields.push((name, value.as_str().unwrap().as_bytes()));
        }
        let request =
            Request { method: &method, path, query, fields: &fields, body: body.as_bytes() };
        let pair = keys(
            &text(&file["access_key"]),
            &text(&file["secret_key"]),
            case["session_token"].as_str(),
        );
        let (region, service) = (text(&case["region"]), text(&case["service"]));
        let at = scope(&region, &service, wall(&text(&case["x_amz_date"])));
        let signed = sign(&request, &pair, &at);
        assert_eq!(signed.date, text(&case["x_amz_date"]));
        assert_eq!(signed.authorization, text(&case["authorization"]), "{}", case["name"]);
    }
}

#[test]
fn vectors_of_a_client() {
    let Some(file) = vectors("sigv4-bedrock-mantle.openai-python.json") else { return };
    let text = |path: &str| file.pointer(path).unwrap().as_str().unwrap().to_owned();
    let (url, body, hash) =
        (text("/request/url"), text("/request/body"), text("/expected/payloadHash"));
    let kind = text("/request/contentType");
    let (authority, path, query) = parts(&url);
    let fields: &[(&str, &[u8])] = &[
        ("host", authority.as_bytes()),
        ("content-type", kind.as_bytes()),
        ("x-amz-content-sha256", hash.as_bytes()),
    ];
    let pair = keys(
        &text("/credentials/accessKeyId"),
        &text("/credentials/secretAccessKey"),
        Some(&text("/credentials/sessionToken")),
    );
    let request = Request { method: "POST", path, query, fields, body: body.as_bytes() };
    let (region, service) = (text("/region"), text("/service"));
    let at = scope(&region, &service, wall(&text("/expected/date")));
    assert_eq!(sign(&request, &pair, &at).authorization, text("/expected/authorization"));
}
