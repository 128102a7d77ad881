//! The assertion that a service account asks with: a JSON Web Token (RFC 7519), signed RS256 (RFC 7518
//! section 3.3), as RFC 7523 section 2.1 has it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::Signer;
use serde_json::json;

use crate::base::secret::Secret;
use crate::base::tick::UnixMs;
use crate::config::ServiceAccount;

/// Seconds that an assertion is good for; the token's own life is the server's choice.
const LIFE: u64 = 3_600;
/// Seconds that our clock may be ahead of the server's.
const SKEW: u64 = 10;

/// The form that asks for a token for `scope`.
///
/// # Errors
/// The account's key can't sign, in words without any of it.
pub fn form(account: &ServiceAccount, scope: &str, now: UnixMs) -> Result<Secret, String> {
    let signer = signer(account)?;
    let mut header = json!({ "alg": "RS256", "typ": "JWT" });
    if let Some(id) = &account.key_id {
        header["kid"] = json!(id);
    }
    let now = (now.0 / 1000).saturating_sub(SKEW);
    let claims = json!({
        "iss": account.email, "scope": scope, "aud": account.token_url.text(),
        "iat": now, "exp": now + LIFE,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = signer.sign(signed.as_bytes()).map_err(|error| error.to_string())?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Ok(Secret::new(format!("grant_type={GRANT}&assertion={signed}.{signature}")))
}

/// Checks that the account's key can sign.
///
/// # Errors
/// Why not, in words without any of it.
pub fn check(account: &ServiceAccount) -> Result<(), String> {
    signer(account).map(|_| ())
}

fn signer(account: &ServiceAccount) -> Result<Box<dyn Signer>, String> {
    // What the parsers say is left out: it is of the key.
    let bad = || format!("the private key of {} is no RSA key in PEM", account.email);
    let key = PrivateKeyDer::from_pem_slice(account.key.expose()).map_err(|_| bad())?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| bad())?;
    key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(bad)
}

const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

#[cfg(test)]
mod tests;
