//! DNS discovery against a name server of our own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::SystemClock;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::discovery::config::{DiscoveryConfig, DnsConfig, DnsRecord};
use crate::discovery::testing::{addresses, metric, wait};
use crate::discovery::{DiscoveryManager, DiscoveryOptions};

type Zone = Arc<Mutex<HashMap<String, Reply>>>;

#[derive(Clone)]
enum Reply {
    Records(Vec<(u16, Vec<u8>)>),
    /// Too long for UDP.
    Long(Vec<(u16, Vec<u8>)>),
    Fails,
}

fn wire_name(name: &str) -> Vec<u8> {
    let parts = name.trim_end_matches('.').split('.');
    let mut out: Vec<u8> = parts.flat_map(|part| [&[part.len() as u8], part.as_bytes()].concat()).collect();
    out.push(0);
    out
}

fn answer(zone: &Zone, question: &[u8], udp: bool) -> Vec<u8> {
    let mut at = 12;
    let mut name = String::new();
    while question[at] != 0 {
        let len = usize::from(question[at]);
        name.push_str(std::str::from_utf8(&question[at + 1..at + 1 + len]).unwrap());
        name.push('.');
        at += len + 1;
    }
    let mut out = question[..at + 5].to_vec();
    out[2] = 0x81;
    (out[10], out[11]) = (0, 0);
    let reply = zone.lock().get(&name).cloned();
    let records = match reply {
        None => {
            out[3] = 3;
            Vec::new()
        }
        Some(Reply::Fails) => {
            out[3] = 2;
            Vec::new()
        }
        Some(Reply::Long(_)) if udp => {
            out[2] |= 2;
            Vec::new()
        }
        Some(Reply::Records(records) | Reply::Long(records)) => records,
    };
    out[7] = records.len() as u8;
    for (kind, data) in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}

/// A server by UDP and TCP on one port.
async fn serve(zone: &Zone) -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = udp.local_addr().unwrap();
        let Ok(tcp) = TcpListener::bind(address).await else { continue };
        let (by_udp, by_tcp) = (Arc::clone(zone), Arc::clone(zone));
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
                let answer = answer(&by_udp, &buffer[..len], true);
                // A stray answer first: it must be passed over.
                let mut stray = answer.clone();
                stray[0] ^= 0xff;
                udp.send_to(&stray, from).await.unwrap();
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let len = stream.read_u16().await.unwrap();
                let mut question = vec![0; usize::from(len)];
                stream.read_exact(&mut question).await.unwrap();
                let answer = answer(&by_tcp, &question, false);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        return address.port();
    }
}

fn config(record: DnsRecord, names: &[&str]) -> Vec<DiscoveryConfig> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    vec![DiscoveryConfig::Dns(DnsConfig { names, record, port: 9100, refresh_interval_ms: 20 })]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_targets_and_failures_keep_them() {
    let zone = Zone::default();
    let port = serve(&zone).await;
    let dir = tempfile::tempdir().unwrap();
    let resolv_conf = dir.path().join("resolv.conf");
    // The first server is not there.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.99\nnameserver 127.0.0.1\nsearch test.local\n").unwrap();
    let put = |name: &str, reply: Reply| zone.lock().insert(name.to_owned(), reply);
    let host = wire_name("h1.example.com.");
    put("_x._tcp.test.local.", Reply::Records(vec![(33, [&[0, 1, 0, 2, 0x1f, 0x90], &host[..]].concat())]));
    put(
        "a.test.local.",
        Reply::Long(vec![(5, host.clone()), (1, vec![10, 0, 0, 1]), (1, vec![10, 0, 0, 2])]),
    );
    put("six.test.local.", Reply::Records(vec![(28, std::net::Ipv6Addr::LOCALHOST.octets().to_vec())]));
    put("mail.test.local.", Reply::Records(vec![(15, [&[0, 5], &host[..]].concat())]));
    put("ns.test.local.", Reply::Records(vec![(2, host)]));
    put("breaks.test.local.", Reply::Records(vec![(1, vec![10, 0, 0, 9])]));

    let registry = prometheus::Registry::new();
    let options =
        DiscoveryOptions { debounce_ms: 5, resolv_conf, dns_port: port, ..DiscoveryOptions::default() };
    let manager = DiscoveryManager::new(SystemClock::shared(), &registry, options).unwrap();
    let jobs = vec![
        ("srv".to_owned(), config(DnsRecord::Srv, &["_x._tcp"])),
        ("a".to_owned(), config(DnsRecord::A, &["a", "breaks"])),
        ("aaaa".to_owned(), config(DnsRecord::Aaaa, &["six"])),
        ("mx".to_owned(), config(DnsRecord::Mx, &["mail"])),
        ("ns".to_owned(), config(DnsRecord::Ns, &["ns"])),
    ];
    let mut receivers = manager.apply(jobs);
    let mut expect = async |i: usize, addresses_wanted: &[&str]| {
        wait(&mut receivers[i].1, |groups| addresses(groups) == addresses_wanted).await
    };
    let srv = expect(0, &["h1.example.com:8080"]).await;
    let labels: Vec<_> = srv[0].targets[0].iter().collect();
    let wanted = [
        ("__address__", "h1.example.com:8080"),
        ("__meta_dns_name", "_x._tcp"),
        ("__meta_dns_srv_record_port", "8080"),
        ("__meta_dns_srv_record_target", "h1.example.com."),
    ];
    assert_eq!(labels, wanted);
    expect(1, &["10.0.0.1:9100", "10.0.0.2:9100", "10.0.0.9:9100"]).await;
    expect(2, &["[::1]:9100"]).await;
    let mx = expect(3, &["h1.example.com:9100"]).await;
    assert_eq!(&mx[0].targets[0]["__meta_dns_mx_record_target"], "h1.example.com.");
    let ns = expect(4, &["h1.example.com:9100"]).await;
    assert_eq!(&ns[0].targets[0]["__meta_dns_ns_record_target"], "h1.example.com.");

    // A failure keeps the name's targets while another name changes; a name that is gone has none.
    put("breaks.test.local.", Reply::Fails);
    put("a.test.local.", Reply::Records(vec![(1, vec![10, 0, 0, 3])]));
    expect(1, &["10.0.0.3:9100", "10.0.0.9:9100"]).await;
    while metric(&registry, "prometheus_sd_dns_lookup_failures_total", &[]) == 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    zone.lock().remove("breaks.test.local.");
    expect(1, &["10.0.0.3:9100"]).await;
    assert!(metric(&registry, "prometheus_sd_dns_lookups_total", &[]) > 5.0);
}
