//! Turns HTTP client settings into those of `kube`'s client, which serves discovery by Kubernetes and by URL alike.
//!
//! Files are read here, each time a client is made.

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use kube::config::Config;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{HttpConfig, SecretSource};

/// Sets credentials, headers and TLS as `http` says.
///
/// # Errors
/// What is wrong, on one line.
pub(super) fn apply_http(config: &mut Config, http: &HttpConfig) -> Result<(), String> {
    apply_tls(config, http)?;
    if let Some(basic) = &http.basic_auth {
        config.auth_info.username = Some(read(&basic.username)?);
        let password = basic.password.as_ref().map(read).transpose()?;
        config.auth_info.password = Some(password.unwrap_or_default().into());
    }
    if let Some(authorization) = &http.authorization {
        let bearer = authorization.kind.eq_ignore_ascii_case("bearer");
        match &authorization.credentials {
            // The file is read again every minute.
            Some(SecretSource::File(path)) if bearer => {
                config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
            }
            Some(token) if bearer => config.auth_info.token = Some(read(token)?.into()),
            Some(other) => {
                let mut value = HeaderValue::from_str(&format!("{} {}", authorization.kind, read(other)?))
                    .map_err(|e| format!("authorization: {e}"))?;
                value.set_sensitive(true);
                config.headers.push((AUTHORIZATION, value));
            }
            None => {}
        }
    }
    for header in &http.headers {
        let name: HeaderName = header.name.parse().map_err(|e| format!("header {}: {e}", header.name))?;
        for value in &header.values {
            let value = HeaderValue::from_str(&read(value)?).map_err(|e| format!("header {name}: {e}"))?;
            config.headers.push((name.clone(), value));
        }
    }
    Ok(())
}

fn apply_tls(config: &mut Config, http: &HttpConfig) -> Result<(), String> {
    let tls = &http.tls;
    config.accept_invalid_certs = tls.insecure_skip_verify;
    config.tls_server_name = (!tls.server_name.is_empty()).then(|| tls.server_name.clone());
    if let Some(ca) = &tls.ca {
        let pem = read(ca)?;
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.map(|der| der.to_vec())).collect();
        let certificates = certificates.map_err(|e| format!("tls_config: ca: {e}"))?;
        if certificates.is_empty() {
            return Err("tls_config: ca holds no certificate".to_owned());
        }
        config.root_cert = Some(certificates);
    }
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            config.auth_info.client_certificate_data = Some(base64(read(cert)?.as_bytes()));
            config.auth_info.client_key_data = Some(base64(read(key)?.as_bytes()).into());
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err("tls_config: a client certificate needs its key and the other way round".to_owned()),
    }
}

/// The text of a secret, without blanks around it if it comes from a file.
fn read(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.expose().to_owned()),
        SecretSource::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) => Err(format!("{}: {e}", path.display())),
        },
    }
}

/// Standard base64 with padding; kubeconfig fields want it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (group >> (18 - 6 * i) & 63) as usize;
            text.push(if i <= chunk.len() { ALPHABET[sextet] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
