//! Signed assertions of RFC 7523 for `grant_type: urn:ietf:params:oauth:grant-type:jwt-bearer`.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use crate::config::SignatureAlgorithm;

/// How long an assertion is good.
const LIFETIME_SECONDS: i64 = 600;

/// What an assertion says.
pub(crate) struct Assertion<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) audience: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) claims: &'a Map<String, Value>,
    pub(crate) key_id: &'a str,
    pub(crate) algorithm: SignatureAlgorithm,
}

impl Assertion<'_> {
    /// The assertion, signed with the PEM key at `now_ms`.
    ///
    /// # Errors
    /// When the key is none.
    pub(crate) fn sign(&self, key: &str, now_ms: i64) -> Result<String, String> {
        let key = match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(_) => return Err("key is not a valid RSA private key".into()),
            Err(_) => return Err("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key".into()),
        };
        let key = key.map_err(|e| format!("key is not a valid RSA private key: {e}"))?;
        let (name, padding): (_, &'static dyn ring::signature::RsaEncoding) = match self.algorithm {
            SignatureAlgorithm::Rs256 => ("RS256", &RSA_PKCS1_SHA256),
            SignatureAlgorithm::Rs384 => ("RS384", &RSA_PKCS1_SHA384),
            SignatureAlgorithm::Rs512 => ("RS512", &RSA_PKCS1_SHA512),
        };
        // Signing blinds the key with the system's random numbers, and the id of an assertion must not be guessed:
        // nothing here could be replayed from a seed.
        let random = SystemRandom::new();
        let mut id = [0_u8; 16];
        random.fill(&mut id).map_err(|_| "no random numbers".to_owned())?;
        let header = if self.key_id.is_empty() {
            json!({"alg": name, "typ": "JWT"})
        } else {
            json!({"alg": name, "kid": self.key_id, "typ": "JWT"})
        };
        let claims = self.claims(now_ms / 1000, &uuid(id));
        let mut text = format!(
            "{}.{}",
            url_base64(header.to_string().as_bytes()),
            url_base64(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &random, text.as_bytes(), &mut signature)
            .map_err(|_| "signing failed".to_owned())?;
        text.push('.');
        text.push_str(&url_base64(&signature));
        Ok(text)
    }

    fn claims(&self, now: i64, id: &str) -> Value {
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| {
            all.insert(name.to_owned(), value);
        };
        put("iss", self.issuer.into());
        put("sub", self.subject.into());
        put("jti", id.into());
        put("aud", self.audience.into());
        put("iat", now.into());
        put("exp", (now + LIFETIME_SECONDS).into());
        if !self.scope.is_empty() {
            put("scope", self.scope.into());
        }
        all.extend(self.claims.iter().map(|(n, v)| (n.clone(), v.clone())));
        Value::Object(all)
    }
}

/// A random UUID of these bytes (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut out = String::with_capacity(36);
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{b:02x}"));
    }
    out
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn url_base64(bytes: &[u8]) -> String {
    crate::client::base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}
