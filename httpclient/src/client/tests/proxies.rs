//! Proxies of every kind, in front of plain and TLS targets.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::server::{Asked, Authority, Server, ok, read_request};
use super::*;
use crate::config::{ProxyConfig, TlsConfig};

/// An HTTP proxy that knows `CONNECT`, or refuses it.
async fn connect_proxy(status: &'static str) -> (u16, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let shared = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(request) = read_request(&mut stream).await else { continue };
            let target = request.line().split(' ').nth(1).expect("a target").to_owned();
            shared.lock().expect("no panic").push(request);
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.expect("written");
            if status.starts_with("200") {
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(target).await.expect("the target");
                    let _ = copy_bidirectional(&mut stream, &mut there).await;
                });
            }
        }
    });
    (port, asked)
}

fn through(url: String) -> ProxyConfig {
    ProxyConfig { url: Some(url), ..ProxyConfig::default() }
}

#[tokio::test]
async fn plain_requests_are_forwarded() {
    let proxy = Server::start(|_| ok("from the proxy")).await;
    let config = ClientConfig {
        proxy: through(format!("http://me:pw@127.0.0.1:{}", proxy.port)),
        ..ClientConfig::default()
    };
    let answered = get(&client(config), "http://target.example:81/x?y=z").await;
    assert_eq!(answered, Ok((200, "from the proxy".into())));
    let asked = proxy.asked().remove(0);
    assert_eq!(asked.line(), "GET http://target.example:81/x?y=z HTTP/1.1");
    assert_eq!(asked.header("proxy-authorization"), Some(format!("Basic {}", base64(b"me:pw")).as_str()));
    assert_eq!(asked.header("host"), Some("target.example:81"));
}

#[tokio::test]
async fn exceptions_go_directly() {
    let (proxy, target) = (Server::start(|_| ok("proxy")).await, Server::start(|_| ok("target")).await);
    let mut settings = through(format!("http://127.0.0.1:{}", proxy.port));
    settings.no_proxy = "127.0.0.0/8".into();
    let c = client(ClientConfig { proxy: settings, ..ClientConfig::default() });
    assert_eq!(get(&c, &target.url("/")).await, Ok((200, "target".into())));
    assert_eq!(get(&c, "http://x.example/").await, Ok((200, "proxy".into())));
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let authority = Authority::new();
    let target =
        Server::with_tls(authority.sign(&["localhost"]).server_config(None), |_| ok("tunnelled")).await;
    let (port, asked) = connect_proxy("200 Connection established").await;
    let mut proxy = through(format!("http://u:p@127.0.0.1:{port}"));
    proxy.connect_headers = vec![("X-Tenant".into(), vec![Secret::new("t")])];
    let tls = TlsConfig { ca: Some(SecretSource::inline(&authority.cert)), ..TlsConfig::default() };
    let config = ClientConfig { proxy, tls, ..ClientConfig::default() };
    let url = format!("https://localhost:{}/", target.port);
    assert_eq!(get(&client(config.clone()), &url).await, Ok((200, "tunnelled".into())));
    let request = asked.lock().expect("no panic").remove(0);
    assert_eq!(request.line(), format!("CONNECT localhost:{} HTTP/1.1", target.port));
    assert_eq!(
        (request.header("x-tenant"), request.header("proxy-authorization")),
        (Some("t"), Some("Basic dTpw"))
    );
    assert_eq!(target.asked()[0].header("x-tenant"), None);

    let (port, _) = connect_proxy("407 Proxy Authentication Required").await;
    let refused = ClientConfig { proxy: through(format!("http://127.0.0.1:{port}")), ..config.clone() };
    let e = get(&client(refused), &url).await.expect_err("refused");
    assert_eq!(e, format!("Get \"{url}\": Proxy Authentication Required"));
    let nobody = ClientConfig { proxy: through("http://127.0.0.1:1".into()), ..config };
    let e = get(&client(nobody), &url).await.expect_err("nobody there");
    assert_eq!(
        e,
        format!("Get \"{url}\": proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused")
    );
}

#[tokio::test]
async fn the_way_to_the_proxy_may_be_tls() {
    let authority = Authority::new();
    let proxy = Server::with_tls(authority.sign(&["localhost"]).server_config(None), |_| ok("by tls")).await;
    let tls = TlsConfig { ca: Some(SecretSource::inline(&authority.cert)), ..TlsConfig::default() };
    let config = ClientConfig {
        proxy: through(format!("https://localhost:{}", proxy.port)),
        tls,
        ..ClientConfig::default()
    };
    assert_eq!(get(&client(config), "http://x.example/y").await, Ok((200, "by tls".into())));
    assert_eq!(proxy.asked()[0].line(), "GET http://x.example/y HTTP/1.1");
}

/// A SOCKS 5 proxy that connects to `port` whatever it is asked for, with or without asking for a password.
async fn socks_proxy(port: u16, password: bool, refusal: u8) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("an address").port();
    let wanted = Arc::new(Mutex::new(Vec::new()));
    let shared = wanted.clone();
    tokio::spawn(async move {
        while let Ok((mut s, _)) = listener.accept().await {
            let mut hello = [0; 2];
            s.read_exact(&mut hello).await.expect("a greeting");
            let mut methods = vec![0; usize::from(hello[1])];
            s.read_exact(&mut methods).await.expect("methods");
            s.write_all(&[5, if password { 2 } else { 0 }]).await.expect("written");
            if password {
                let mut head = [0; 2];
                s.read_exact(&mut head).await.expect("a user");
                let mut user = vec![0; usize::from(head[1]) + 1];
                s.read_exact(&mut user).await.expect("a user");
                let mut secret = vec![0; usize::from(*user.last().expect("a length"))];
                s.read_exact(&mut secret).await.expect("a password");
                s.write_all(&[1, u8::from(secret != b"pw")]).await.expect("written");
            }
            let mut head = [0; 5];
            if s.read_exact(&mut head).await.is_err() {
                continue;
            }
            let mut host = vec![0; usize::from(head[4]) + 2];
            s.read_exact(&mut host).await.expect("a host");
            host.truncate(usize::from(head[4]));
            shared.lock().expect("no panic").push(String::from_utf8(host).expect("a name"));
            s.write_all(&[5, refusal, 0, 1, 0, 0, 0, 0, 0, 0]).await.expect("written");
            if refusal == 0 {
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(("127.0.0.1", port)).await.expect("the target");
                    let _ = copy_bidirectional(&mut s, &mut there).await;
                });
            }
        }
    });
    (own, wanted)
}

#[tokio::test]
async fn socks_proxies_resolve_names() {
    let target = Server::start(|_| ok("by socks")).await;
    for (password, user) in [(false, ""), (true, "me:pw@")] {
        let (port, wanted) = socks_proxy(target.port, password, 0).await;
        let c = client(ClientConfig {
            proxy: through(format!("socks5://{user}127.0.0.1:{port}")),
            ..ClientConfig::default()
        });
        assert_eq!(get(&c, "http://far.example:81/m").await, Ok((200, "by socks".into())));
        assert_eq!(*wanted.lock().expect("no panic"), ["far.example"]);
    }
    assert_eq!(target.asked()[0].line(), "GET /m HTTP/1.1");
    for (user, refusal, why) in [
        ("me:no@", 0, "username/password authentication failed"),
        ("", 0, "unsupported authentication method 2"),
        ("me:pw@", 5, "unknown error connection refused"),
    ] {
        let (port, _) = socks_proxy(target.port, true, refusal).await;
        let proxy = through(format!("socks5h://{user}127.0.0.1:{port}"));
        let c = client(ClientConfig { proxy, ..ClientConfig::default() });
        let e = get(&c, "http://far.example:81/").await.expect_err(why);
        assert_eq!(
            e,
            format!(
                "Get \"http://far.example:81/\": socks connect tcp 127.0.0.1:{port}->far.example:81: {why}"
            )
        );
    }
}
