//! SOCKS 5 (RFC 1928) with user and password (RFC 1929): the proxy resolves the name.

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Asks the proxy at the other end of `stream` to connect to `host`.
///
/// # Errors
/// Why it does not, in the words of Go's `socks`.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    port: u16,
    credentials: Option<(&str, &str)>,
) -> Result<(), String> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => crate::error::os_text(&e),
    };
    let methods: &[u8] =
        if credentials.is_some() { &[NO_AUTHENTICATION, USER_PASSWORD] } else { &[NO_AUTHENTICATION] };
    let mut hello = vec![VERSION, methods.len() as u8];
    hello.extend_from_slice(methods);
    stream.write_all(&hello).await.map_err(io)?;
    let mut answer = [0_u8; 2];
    stream.read_exact(&mut answer).await.map_err(io)?;
    if answer[0] != VERSION {
        return Err(format!("unexpected protocol version {}", answer[0]));
    }
    match (answer[1], credentials) {
        (NO_AUTHENTICATION, _) => {}
        (USER_PASSWORD, Some((user, password))) => {
            stream.write_all(&user_password(user, password)?).await.map_err(io)?;
            stream.read_exact(&mut answer).await.map_err(io)?;
            if answer[0] != 1 {
                return Err("invalid username/password version".into());
            }
            if answer[1] != 0 {
                return Err("username/password authentication failed".into());
            }
        }
        (0xff, _) => return Err("no acceptable authentication methods".into()),
        (other, _) => return Err(format!("unsupported authentication method {other}")),
    }
    stream.write_all(&request(host, port)?).await.map_err(io)?;
    let mut head = [0_u8; 4];
    stream.read_exact(&mut head).await.map_err(io)?;
    if head[0] != VERSION {
        return Err(format!("unexpected protocol version {}", head[0]));
    }
    if head[1] != 0 {
        return Err(format!("unknown error {}", refusal(head[1])));
    }
    if head[2] != 0 {
        return Err("non-zero reserved field".into());
    }
    let address_len = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(io)?),
        other => return Err(format!("unknown address type {other}")),
    };
    // The address that the proxy uses, and its port, are of no interest.
    let mut bound = vec![0_u8; address_len + 2];
    stream.read_exact(&mut bound).await.map_err(io)?;
    Ok(())
}

fn user_password(user: &str, password: &str) -> Result<Vec<u8>, String> {
    let lens = (u8::try_from(user.len()), u8::try_from(password.len()));
    let (Ok(user_len @ 1..), Ok(password_len)) = lens else { return Err("invalid username/password".into()) };
    let mut out = vec![1, user_len];
    out.extend_from_slice(user.as_bytes());
    out.push(password_len);
    out.extend_from_slice(password.as_bytes());
    Ok(out)
}

fn request(host: &str, port: u16) -> Result<Vec<u8>, String> {
    let mut out = vec![VERSION, CONNECT, 0];
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => {
            out.push(1);
            out.extend_from_slice(&a.octets());
        }
        Ok(IpAddr::V6(a)) => {
            out.push(4);
            out.extend_from_slice(&a.octets());
        }
        Err(_) => {
            let len = u8::try_from(host.len()).map_err(|_| "FQDN too long".to_owned())?;
            out.push(3);
            out.push(len);
            out.extend_from_slice(host.as_bytes());
        }
    }
    out.extend_from_slice(&port.to_be_bytes());
    Ok(out)
}

fn refusal(code: u8) -> String {
    match code {
        1 => "general SOCKS server failure".into(),
        2 => "connection not allowed by ruleset".into(),
        3 => "network unreachable".into(),
        4 => "host unreachable".into(),
        5 => "connection refused".into(),
        6 => "TTL expired".into(),
        7 => "command not supported".into(),
        8 => "address type not supported".into(),
        other => format!("unknown code: {other}"),
    }
}
