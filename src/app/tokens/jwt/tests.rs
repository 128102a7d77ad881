//! What is signed, proved with the public key. The key pair is of `tests/keys`, for tests alone.

use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;
use crate::config::BaseUrl;

const KEY: &str = include_str!("../../../../tests/keys/service-account.pem");
const PUBLIC: &str = include_str!("../../../../tests/keys/service-account.pub");

fn account(key: &str) -> ServiceAccount {
    ServiceAccount {
        email: String::from("robot@p.iam.gserviceaccount.com"),
        key_id: Some(String::from("k1")),
        key: Secret::new(key),
        token_url: BaseUrl {
            tls: true,
            host: String::from("oauth2.googleapis.com"),
            port: 443,
            path: String::from("/token"),
        },
    }
}

/// Header, claims, what is signed, and the signature.
fn parts(form: &Secret) -> (Value, Value, String, Vec<u8>) {
    let form = std::str::from_utf8(form.expose()).unwrap();
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let token = form.strip_prefix(grant).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let json = |part: &str| serde_json::from_slice(&read(part)).unwrap();
    (json(header), json(claims), signed.to_owned(), read(signature))
}

#[test]
fn the_assertion_says_who_asks_and_is_signed() {
    let form = form(&account(KEY), "scope", UnixMs(1_700_000_000_500)).unwrap();
    let (header, claims, signed, signature) = parts(&form);
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }));
    assert_eq!(
        claims,
        json!({
            "iss": "robot@p.iam.gserviceaccount.com", "scope": "scope",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": 1_699_999_990, "exp": 1_700_003_590,
        })
    );
    let public: String = PUBLIC.split_whitespace().collect();
    let public = STANDARD.decode(public).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let known = provider.signature_verification_algorithms.mapping;
    let (_, algorithms) =
        known.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256).unwrap();
    let verify = |signed: &str, signature: &[u8]| {
        algorithms.iter().any(|a| a.verify_signature(&public, signed.as_bytes(), signature).is_ok())
    };
    assert!(verify(&signed, &signature));
    assert!(!verify(&format!("{signed}x"), &signature));
}

#[test]
fn a_key_that_can_not_sign_is_told_without_it() {
    assert_eq!(check(&account(KEY)), Ok(()));
    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cut = KEY.replace("MII", "MIJ");
    for key in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &elliptic, &cut]
    {
        let why = check(&account(key)).unwrap_err();
        assert!(why.contains("robot@p") && !why.contains("AAAA"), "{why}");
    }
}
